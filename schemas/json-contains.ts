/** Containment of JSON, as `@>` of Postgres' jsonb: the predicate by which items are chosen. */
import { isObject } from "./json.ts";

/**
 * Whether `value` has everything that `pattern` says: of a map its keys, of a list an element for
 * each of its elements, of anything else the same value.
 */
export function contains(value: unknown, pattern: unknown): boolean {
  if (Array.isArray(pattern)) {
    return Array.isArray(value) && pattern.every(one => value.some(other => contains(other, one)));
  }
  if (isObject(pattern)) {
    return (
      isObject(value) &&
      Object.entries(pattern).every(
        ([key, inner]) => Object.hasOwn(value, key) && contains(value[key], inner),
      )
    );
  }
  return value === pattern;
}
