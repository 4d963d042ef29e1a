/** Numbers in the opening of a loop, as templates gave them. */

/** The loop cannot be opened as it is written: a failure of its step. */
export class LoopError extends Error {}

/** How many of so many may fail: a number, or a share in percent where that is more. */
export function mayFailOf(total: number, { count = 0, percent = 0 }: Tolerated): number {
  // Multiplied first: 29 / 100 is a little less than 0.29.
  return Math.max(count, Math.floor((percent * total) / 100));
}

export interface Tolerated {
  count?: number | undefined;
  percent?: number | undefined;
}

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
