/** What an action answers, as the JSON that it is over any wire. */
import { configFailure } from "../../mixins/tool.ts";
import { isObject, type Json } from "../../schemas/json.ts";

/** Largest answer of an action, as JSON. */
const ANSWER_BYTES_MAX = 33_554_432;

/** The answer as JSON. Throws a config failure for a stream and for what JSON cannot say. */
export function plainAnswer(value: unknown, action: string): Json {
  const hint = "only JSON can be the result of a step";
  if (isStream(value)) {
    value.destroy?.();
    throw configFailure(`'${action}' answered a stream`, hint);
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value, refuseForeign);
  } catch (error) {
    throw configFailure(`'${action}' answered what is not JSON: ${(error as Error).message}`, hint);
  }
  if (text === undefined) return null;
  if (Buffer.byteLength(text) > ANSWER_BYTES_MAX) {
    throw configFailure(`'${action}' answered more than ${ANSWER_BYTES_MAX} bytes`, "answer an id");
  }
  return JSON.parse(text) as Json;
}

function isStream(value: unknown): value is { destroy?(): void } {
  return isObject(value) && typeof value["pipe"] === "function";
}

/** Values that JSON.stringify would leave out, or write as something that they are not. */
function refuseForeign(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const raw = this[key];
  const name = foreignName(raw);
  if (name) throw new TypeError(key === "" ? name : `${name} at '${key}'`);
  return value;
}

function foreignName(raw: unknown): string | undefined {
  if (typeof raw === "function" || typeof raw === "symbol" || typeof raw === "bigint") {
    return `a ${typeof raw}`;
  }
  if (raw instanceof Map || raw instanceof Set || raw instanceof Promise) {
    return `a ${raw.constructor.name}`;
  }
  if (ArrayBuffer.isView(raw) || raw instanceof ArrayBuffer) return "bytes";
  return isStream(raw) ? "a stream" : undefined;
}
