/** Numbers in the opening of a loop, as templates gave them. */

/** The loop cannot be opened as it is written: a failure of its step. */
export class LoopError extends Error {}

/** A whole number of at least 1; throws LoopError, naming the field. */
export function wholeNumber(field: string, rendered: unknown): number {
  return numberOf(field, rendered, {
    accepts: value => Number.isInteger(value) && value >= 1,
    expected: "a whole number ≥ 1",
  });
}

/** A number above 0; throws LoopError, naming the field. */
export function positive(field: string, rendered: unknown): number {
  return numberOf(field, rendered, {
    accepts: value => Number.isFinite(value) && value > 0,
    expected: "a number above 0",
  });
}

function numberOf(
  field: string,
  rendered: unknown,
  wanted: { accepts(value: number): boolean; expected: string },
): number {
  const isScalar = typeof rendered === "number" || typeof rendered === "string";
  const value = isScalar && rendered !== "" ? Number(rendered) : NaN;
  if (wanted.accepts(value)) return value;
  throw new LoopError(`${field} gave ${JSON.stringify(rendered)}, expected ${wanted.expected}`);
}
