/** API keys: made and shown once, kept as digests, verified for the front door. */
import { createHash, randomBytes } from "node:crypto";
import type { ActionSchema, Context, Service, ServiceSchema } from "moleculer";
import { z } from "zod";
import { batched } from "../../mixins/batched.ts";
import {
  addApiKey,
  findApiKeys,
  listApiKeys,
  revokeApiKey,
} from "../../mixins/postgres/api-key.ts";
import { keepNewest } from "../../mixins/newest.ts";
import { codeOf } from "../../mixins/postgres/index.ts";
import type { Query } from "../../mixins/postgres/index.ts";
import { KEY_MEMORY_MS } from "../../schemas/access.ts";
import { requestedBy } from "../../schemas/caller.ts";
import type { Caller } from "../../schemas/caller.ts";
import { Rejected } from "../../schemas/errors.ts";
import { keysCreate, keysRevoke } from "../../schemas/key-requests.ts";
import type { KeysCreate } from "../../schemas/key-requests.ts";
import { LIMITS, nothing, validated } from "../../schemas/requests.ts";

export interface KeysOptions {
  database: Query;
  /** Another KEY_MEMORY_MS. */
  cacheMs?: number;
}

const CACHE_MAX_ENTRIES = 1_000;
const KEY_BYTES = 32;
const DUPLICATE = "23505";

const keysVerify = z.strictObject({ key_hash: z.string().regex(/^[0-9a-f]{64}$/, "a sha256") });

/**
 * The service `keys`. No action is published: the front door offers what admins may ask, and
 * nobody reaches the others by HTTP, in no app that hosts this service.
 */
export default function keysService(options: KeysOptions): ServiceSchema {
  const { database } = options;
  const memory = new KeyMemory(options);
  return {
    name: "keys",
    actions: {
      /** `{name, role}` → `{name, role, key}`, the key this once. Rejected 409: name is taken. */
      create: quiet(
        validated(keysCreate, async function (this: Service, ctx: Context, given) {
          const created = await createKey(database, given, requestedBy(ctx).requested_by);
          this.logger.info({ ...given, ...requestedBy(ctx) }, "key.created");
          return created;
        }),
      ),
      /** → `{keys}`: names, roles and times; good ones first. */
      list: quiet(
        validated(nothing, async () => ({ keys: await listApiKeys(database, LIMITS.listMax) })),
      ),
      /** `{name}` → `{name, revoked_at}`. Repeatable. Rejected 404 when there is none. */
      revoke: quiet(
        validated(keysRevoke, async function (this: Service, ctx: Context, { name }) {
          const revoked_at = await revokeApiKey(database, name);
          if (revoked_at === undefined) throw new Rejected(`There is no key '${name}'`, 404);
          memory.forget(name);
          this.logger.info({ name, ...requestedBy(ctx) }, "key.revoked");
          return { name, revoked_at };
        }),
      ),
      /** `{key_hash}`, a key's sha256 as hex → `{name, role}`. Rejected 401 when it is not good. */
      verify: quiet(validated(keysVerify, (_ctx: Context, p) => memory.verify(p.key_hash))),
    },
  } as ServiceSchema;
}

/** For this system's own nodes only; answers stay out of traces and caches. */
function quiet(handler: ActionSchema["handler"]): ActionSchema {
  return { visibility: "public", tracing: false, cache: false, handler };
}

async function createKey(database: Query, { name, role }: KeysCreate, createdBy?: string) {
  const key = `noetl_${randomBytes(KEY_BYTES).toString("base64url")}`;
  const key_hash = createHash("sha256").update(key).digest("hex");
  try {
    await addApiKey(database, { name, role, key_hash, created_by: createdBy });
  } catch (error) {
    if (codeOf(error) !== DUPLICATE) throw error;
    // Events say who asked by this name, so it stays with its first key, also a revoked one.
    throw new Rejected(`There is a key '${name}', or was; choose another name`, 409);
  }
  return { name, role, key };
}

/**
 * Good keys for a moment, by their digests: what a lookup by digest takes says nothing about the
 * key. Unknown digests are not remembered, so that nobody can fill this; many at once are one read.
 */
class KeyMemory {
  readonly #cacheMs: number;
  readonly #find: (keyHash: string) => Promise<Caller | undefined>;
  readonly #good = new Map<string, { untilMs: number; caller: Caller }>();

  constructor({ database, cacheMs = KEY_MEMORY_MS }: KeysOptions) {
    this.#cacheMs = cacheMs;
    this.#find = batched(async hashes => {
      const found = await findApiKeys(database, [...new Set(hashes)]);
      const callers = new Map(found.map(({ key_hash, name, role }) => [key_hash, { name, role }]));
      return hashes.map(hash => callers.get(hash));
    });
  }

  async verify(keyHash: string): Promise<Caller> {
    const nowMs = performance.now();
    const known = this.#good.get(keyHash);
    if (known && known.untilMs > nowMs) return known.caller;
    const caller = await this.#find(keyHash);
    this.#good.delete(keyHash);
    if (!caller) throw new Rejected("The API key is unknown or revoked", 401);
    // Counted from before the read: what was revoked during it is forgotten in time as well.
    this.#good.set(keyHash, { untilMs: nowMs + this.#cacheMs, caller });
    keepNewest(this.#good, CACHE_MAX_ENTRIES);
    return caller;
  }

  forget(name: string): void {
    for (const [hash, { caller }] of this.#good) if (caller.name === name) this.#good.delete(hash);
  }
}
