/** A value that answers members lazily: what a scope hands to templates instead of a copy. */
import type { Json } from "../json.ts";

export abstract class View {
  /** One member, undefined when absent. Never a function. */
  abstract member(key: string | number): unknown;
  /** How many items a list has, where that is known without its value. */
  get length(): number | undefined {
    return undefined;
  }
  /** The plain value: for printing, iteration, equality, and for crossing into a tool. */
  abstract plain(): Json;
}

/** The plain value behind a View, or the value itself. */
export function unwrap(value: unknown): unknown {
  return value instanceof View ? value.plain() : value;
}
