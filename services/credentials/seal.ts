/** Sealing credentials: AES-256-GCM under the operator's key. Pure but for the nonce. */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { Rejected } from "../../schemas/errors.ts";
import { isObject } from "../../schemas/json.ts";

/** The operator's key, and a digest of it that may be stored and shown. */
export interface SealingKey {
  bytes: Buffer;
  key_id: string;
}

const ALGORITHM = "aes-256-gcm";
const KEY_BYTES = 32;
/** NIST SP 800-38D §8.2: 96 random bits, good for 2^32 seals under one key. */
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const VERSION = 1;
const HEADER_BYTES = 1 + NONCE_BYTES + TAG_BYTES;
const HINT = "make one with: openssl rand -base64 32";

/**
 * `NOETL_ENCRYPTION_KEY`: 32 bytes as base64 or hex. Throws Rejected for anything weaker, without
 * repeating it.
 */
export function readKey(text: string): SealingKey {
  const compact = text.trim();
  const hex = /^[0-9a-fA-F]{64}$/.test(compact);
  const base64 = /^[A-Za-z0-9+/_-]{43}=?$/.test(compact);
  const bytes = hex || base64 ? Buffer.from(compact, hex ? "hex" : "base64") : undefined;
  if (bytes?.length !== KEY_BYTES) {
    throw new Rejected(`NOETL_ENCRYPTION_KEY: expected 32 bytes as base64 or hex; ${HINT}`, 422);
  }
  if (bytes.every(byte => byte === bytes[0])) {
    throw new Rejected(`NOETL_ENCRYPTION_KEY: one byte repeated is not a key; ${HINT}`, 422);
  }
  const key_id = createHash("sha256")
    .update("noetl.key_id")
    .update(bytes)
    .digest("hex")
    .slice(0, 12);
  return { bytes, key_id };
}

/** Version byte, nonce, tag, ciphertext; the name is authenticated along. */
export function seal(key: SealingKey, name: string, data: Record<string, unknown>): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(ALGORITHM, key.bytes, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(Buffer.from(name, "utf8"));
  const sealed = Buffer.concat([cipher.update(JSON.stringify(data), "utf8"), cipher.final()]);
  return Buffer.concat([Buffer.from([VERSION]), nonce, cipher.getAuthTag(), sealed]);
}

/**
 * Throws Rejected 409 when the key is not the one that sealed it, or the bytes were changed or
 * moved.
 */
export function unseal(
  key: SealingKey,
  sealed: { name: string; data: Buffer; key_id: string },
): Record<string, unknown> {
  const { name, data } = sealed;
  if (sealed.key_id !== key.key_id) {
    const keys = `it was sealed with key ${sealed.key_id}, NOETL_ENCRYPTION_KEY is ${key.key_id}`;
    throw new Rejected(`credential '${name}' cannot be opened: ${keys}`, 409);
  }
  if (data[0] !== VERSION || data.length < HEADER_BYTES) throw damaged(name);
  try {
    const nonce = data.subarray(1, 1 + NONCE_BYTES);
    const decipher = createDecipheriv(ALGORITHM, key.bytes, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(name, "utf8"));
    decipher.setAuthTag(data.subarray(1 + NONCE_BYTES, HEADER_BYTES));
    const text = Buffer.concat([decipher.update(data.subarray(HEADER_BYTES)), decipher.final()]);
    const value: unknown = JSON.parse(text.toString("utf8"));
    if (isObject(value)) return value;
  } catch {
    // What was thrown could quote the text.
  }
  throw damaged(name);
}

function damaged(name: string): Rejected {
  return new Rejected(`credential '${name}' cannot be opened: its stored bytes were changed`, 409);
}
