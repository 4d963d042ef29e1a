// The result port: values too large for a row, kept in a tier and named by a reference.
import { createHash } from "node:crypto";
import { Rejected } from "../../schemas/errors.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { isObject } from "../../schemas/json.ts";
import type { ResultReference } from "../../schemas/events.ts";

export interface ResultStore {
  /**
   * Keeps a value under a name (`exec/<id>/…`, unique in its execution); the same name may be
   * written again.
   */
  put(name: string, value: Json): Promise<ResultReference>;
  /**
   * The value behind a reference. Throws Rejected when it is gone, Unavailable when its tier is.
   */
  get(reference: ResultReference): Promise<Json>;
}

/** One place where bytes are kept. */
export interface Tier {
  readonly name: string;
  write(key: string, bytes: Buffer): Promise<void>;
  read(key: string): Promise<Buffer>;
}

/** Scalars of at most this many characters are copied into the reference. */
const EXTRACT_TEXT_MAX = 128;
const EXTRACT_KEYS_MAX = 24;

export const REFERENCE_PREFIX = "noetl://execution/";

/** A result store over one tier. Values are JSON, checked by their hash when they are read. */
export function createResultStore(tier: Tier): ResultStore {
  return {
    async put(name, value) {
      const bytes = Buffer.from(JSON.stringify(value));
      await tier.write(name, bytes);
      return {
        ref: `${REFERENCE_PREFIX}${name}`,
        sha256: createHash("sha256").update(bytes).digest("hex"),
        bytes: bytes.length,
        tier: tier.name,
        extract: extractScalars(value),
      };
    },
    async get(reference) {
      const bytes = await tier.read(reference.ref.slice(REFERENCE_PREFIX.length));
      const { sha256, ref } = reference;
      if (sha256 !== undefined && createHash("sha256").update(bytes).digest("hex") !== sha256) {
        throw new Rejected(`the result '${ref}' is not what was stored there`, 409, { ref });
      }
      return JSON.parse(bytes.toString("utf8")) as Json;
    },
  };
}

/** The small scalars of a value's top level: what guards usually ask for. */
export function extractScalars(value: Json): JsonObject | undefined {
  if (!isObject(value)) return undefined;
  const small: JsonObject = {};
  let count = 0;
  for (const [key, member] of Object.entries(value)) {
    if (count >= EXTRACT_KEYS_MAX) break;
    if (typeof member === "object" && member !== null) continue;
    if (typeof member === "string" && member.length > EXTRACT_TEXT_MAX) continue;
    small[key] = member;
    count += 1;
  }
  return small;
}
