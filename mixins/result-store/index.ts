// The result port: values too large for a row, kept in a tier and named by a reference.
import { createHash } from "node:crypto";
import { Rejected } from "../../schemas/errors.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { isObject } from "../../schemas/json.ts";
import type { ResultReference } from "../../schemas/events.ts";
import { parse, stringify } from "./shared-parts.ts";

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
  /** The value whose reference is only known by its `ref`, in whichever tier it is. */
  find(ref: string): Promise<Json>;
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
/** Of a value's hash, in its key. */
const HASH_CHARS = 16;

export const REFERENCE_PREFIX = "noetl://execution/";

/**
 * A result store that writes to one tier and reads from the one a reference names. Values are JSON,
 * checked by their hash when they are read.
 */
export function createResultStore(tier: Tier, others: Tier[] = []): ResultStore {
  const tiers = new Map([tier, ...others].map(one => [one.name, one]));

  async function read(from: Tier, ref: string, sha256: string | undefined): Promise<Json> {
    const bytes = await from.read(ref.slice(REFERENCE_PREFIX.length));
    const found = createHash("sha256").update(bytes).digest("hex");
    if (sha256 !== undefined && !found.startsWith(sha256)) {
      throw new Rejected(`the result '${ref}' is not what was stored there`, 409, { ref });
    }
    return parse(bytes.toString("utf8"));
  }

  return {
    async put(name, value) {
      const bytes = Buffer.from(stringify(value));
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      // Two that keep different values under one name (rivals, before one of them is refused) must
      // not overwrite each other.
      const key = `${name}-${sha256.slice(0, HASH_CHARS)}`;
      await tier.write(key, bytes);
      return {
        ref: `${REFERENCE_PREFIX}${key}`,
        sha256,
        bytes: bytes.length,
        tier: tier.name,
        extract: extractScalars(value),
      };
    },
    async get(reference) {
      const { sha256, ref } = reference;
      const from = tiers.get(reference.tier);
      if (!from) throw new Rejected(`the result '${ref}' is in tier '${reference.tier}'`, 409);
      return read(from, ref, sha256);
    },
    async find(ref) {
      const [last, ...before] = [...tiers.values()].reverse();
      for (const one of before.reverse()) {
        try {
          return await read(one, ref, hashIn(ref));
        } catch (error) {
          if ((error as { code?: unknown }).code !== 404) throw error;
        }
      }
      return read(last ?? tier, ref, hashIn(ref));
    },
  };
}

/** The beginning of a value's hash, which `put` writes at the end of its key. */
function hashIn(ref: string): string | undefined {
  return /-([0-9a-f]{16})$/.exec(ref)?.[1];
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
