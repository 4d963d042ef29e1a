/** JSON values: what crosses every boundary of this system. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a value as JSON has at most so many bytes: who asks keeps a larger one elsewhere. */
export function fits(value: unknown, bytesMax: number): boolean {
  return Buffer.byteLength(JSON.stringify(value) ?? "") <= bytesMax;
}

/** About how many bytes a value has as JSON: quick, for sums that decide when to stop adding. */
export function roughBytes(value: Json): number {
  if (typeof value === "string") return value.length + 2;
  return typeof value === "object" && value !== null ? JSON.stringify(value).length : 8;
}

const LONG_DIGITS = /\d{16}/;

/**
 * JSON.parse that loses no digits: integers beyond 2^53 come back as strings.
 * Throws SyntaxError like JSON.parse. The slower path is taken only for texts with long digit runs.
 */
export function parseJson(text: string): Json {
  if (!LONG_DIGITS.test(text)) return JSON.parse(text);
  return JSON.parse(text, keepDigits);
}

function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context?.source;
  return source !== undefined && /^-?\d+$/.test(source) ? source : value;
}
