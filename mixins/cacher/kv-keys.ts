// Keys of a Moleculer cacher as keys of a NATS KV bucket, and the other way round.
import { createHash } from "node:crypto";
import { Utils } from "moleculer";

/** Longer parameters are kept as their digest; a subject of NATS has 4 KB at most. */
const PARAMS_MAX_BYTES = 512;
/** Anything but letters, digits and a few signs is no key of NATS, and an empty token is none. */
const EMPTY = "_";

/**
 * `executions.get:"1"|…` as `cache.<action>.<params>`, both base64url. Long params are
 * `cache.<action>.sha256.<digest>`: they are found again, and told apart, but not shown.
 */
export function toKvKey(key: string): string {
  const { action, params } = split(key);
  if (params === undefined) return `cache.${encoded(action)}`;
  if (Buffer.byteLength(params) <= PARAMS_MAX_BYTES) {
    return `cache.${encoded(action)}.${encoded(params)}`;
  }
  const digest = createHash("sha256").update(params).digest("base64url");
  return `cache.${encoded(action)}.sha256.${digest}`;
}

/** The cacher's key; of long params only the digest. */
export function fromKvKey(kvKey: string): string {
  const [, action = EMPTY, params, digest] = kvKey.split(".");
  if (params === undefined) return decoded(action);
  return `${decoded(action)}:${digest === undefined ? decoded(params) : `sha256:${digest}`}`;
}

/**
 * Whether a pattern of Moleculer's `clean` means this key. Where the params are a digest the part
 * before them decides: cleaning too much costs time only.
 */
export function isMeant(kvKey: string, pattern: string): boolean {
  const key = fromKvKey(kvKey);
  if (Utils.match(key, pattern)) return true;
  const isDigest = kvKey.split(".").length === 4;
  return isDigest && Utils.match(split(key).action, split(pattern).action);
}

/** The key of a lock on a key of the cacher. */
export function toLockKey(key: string): string {
  return toKvKey(key).replace(/^cache/, "lock");
}

function split(key: string): { action: string; params?: string } {
  const at = key.indexOf(":");
  return at < 0 ? { action: key } : { action: key.slice(0, at), params: key.slice(at + 1) };
}

function encoded(text: string): string {
  return text === "" ? EMPTY : `k${Buffer.from(text).toString("base64url")}`;
}

function decoded(token: string): string {
  return token === EMPTY ? "" : Buffer.from(token.slice(1), "base64url").toString();
}
