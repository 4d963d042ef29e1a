/** Credentials by alias: kept sealed, listed without data, resolved in the same process only. */
import type { Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import { z } from "zod";
import {
  findCredential,
  listCredentials,
  removeCredential,
  saveCredential,
} from "../../mixins/postgres/credential.ts";
import type { Query } from "../../mixins/postgres/index.ts";
import { keepNewest } from "../../mixins/newest.ts";
import { forget, remembered } from "../../mixins/cacher/remembered.ts";
import { Rejected } from "../../schemas/errors.ts";
import { nearest } from "../../schemas/playbook/nearest.ts";
import { LIMITS, checked, credentialsRegister } from "../../schemas/requests.ts";
import { readAliasFile, readAliasVariables, variableForm } from "./aliases.ts";
import type { Alias } from "./aliases.ts";
import { readKey, seal, unseal } from "./seal.ts";
import type { SealingKey } from "./seal.ts";

export interface CredentialsOptions {
  /** 32 bytes as base64 or hex. Without it nothing is stored and nothing stored is read. */
  encryptionKey?: string;
  /** JSON or YAML map of alias to `{type, data}`, read when the service starts. */
  file?: string;
  /** Lower-case alias to JSON `{type, data}`, from the environment. */
  variables?: Record<string, string>;
  /** Without it there are only the aliases of the file and the environment. */
  database?: Query;
  /** How long a resolved credential is remembered; the bound on staleness on other nodes. */
  cacheMs?: number;
}

export interface ResolvedCredential {
  name: string;
  type: string;
  data: Record<string, unknown>;
}

/** What `list` and `get` show. */
export interface ListedCredential {
  name: string;
  type: string;
  source: "environment" | "file" | "database";
  created_at?: string;
  updated_at?: string;
  key_id?: string;
}

const CACHE_MS = 30_000;
const CACHE_MAX_ENTRIES = 1_000;
/** Type and times of a stored one; a change forgets them at once. */
const METADATA_KEPT_SECONDS = 30;
/** Known aliases that the error about an unknown one names. */
const KNOWN_SHOWN = 20;

const byName = z.strictObject({ name: z.string().min(1).max(128) });
const byAlias = z.strictObject({ alias: z.string().min(1).max(128) });

/**
 * The service `credentials`. An alias of the environment wins over one of the file, which wins
 * over a stored one: what an operator gives to one process is meant for it, and works when the
 * store is down. Throws Rejected when the key is malformed; `started` throws it for the file.
 */
export function credentials(options: CredentialsOptions = {}): ServiceSchema {
  const vault = new Vault(options);
  return {
    name: "credentials",
    actions: {
      /**
       * `{name, type, data}` → `{name, type, source, created_at, updated_at, key_id,
       * shadowed_by?}`. Replaces.
       */
      register: quiet("published", async (ctx: Context) => {
        const answer = await vault.register(checked(credentialsRegister, ctx.params));
        await forget(ctx.broker, metadataKey(answer.name));
        void ctx.broker.broadcast("credentials.changed", { name: answer.name });
        return answer;
      }),
      /** Names, types, sources and times. */
      list: quiet("published", async () => ({ credentials: await vault.list() })),
      /** `{name}` → the same of one. Rejected 404 when unknown. */
      get: quiet("published", async (ctx: Context) =>
        vault.describe(checked(byName, ctx.params).name, ctx.broker),
      ),
      /** `{name}` → `{name, deleted: true}`. Only stored ones; Rejected 404 when there is none. */
      delete: quiet("published", async (ctx: Context) => {
        const { name } = checked(byName, ctx.params);
        await vault.remove(name);
        await forget(ctx.broker, metadataKey(name));
        void ctx.broker.broadcast("credentials.changed", { name });
        return { name, deleted: true };
      }),
      /**
       * `{alias}` → `{name, type, data}`, with its secrets. Moleculer does not offer a protected
       * action to other nodes or to the API; a request that names it all the same is refused here.
       */
      resolve: quiet("protected", async (ctx: Context) => {
        if (ctx.nodeID !== ctx.broker.nodeID) {
          throw new Rejected("credentials.resolve answers its own process only", 403);
        }
        return vault.resolve(checked(byAlias, ctx.params).alias);
      }),
    },
    events: {
      "credentials.changed": (ctx: Context<{ name?: unknown }>) => {
        const name = String(ctx.params?.name);
        vault.forget(name);
        // A cacher may be a node's own.
        void forget(ctx.broker, metadataKey(name));
      },
    },
    async started(this: Service) {
      const count = await vault.readFile();
      if (options.file) this.logger.info({ file: options.file, count }, "credentials.file_read");
    },
  };
}

function metadataKey(name: string): string {
  return `credentials.get:${JSON.stringify(name)}`;
}

/** An action whose parameters and answer stay out of traces and caches. */
function quiet(visibility: "published" | "protected", handler: (ctx: Context) => Promise<unknown>) {
  return { visibility, tracing: false, cache: false, handler };
}

/** All sources of credentials, and a short memory of what they said. */
class Vault {
  readonly #options: CredentialsOptions;
  readonly #key: SealingKey | undefined;
  readonly #variables: Map<string, Alias>;
  #file = new Map<string, Alias>();
  readonly #cache = new Map<string, { untilMs: number; value: Promise<ResolvedCredential> }>();

  constructor(options: CredentialsOptions) {
    this.#options = options;
    this.#key = options.encryptionKey ? readKey(options.encryptionKey) : undefined;
    this.#variables = readAliasVariables(options.variables ?? {});
  }

  async readFile(): Promise<number> {
    if (this.#options.file) this.#file = await readAliasFile(this.#options.file);
    return this.#file.size;
  }

  async register(given: ResolvedCredential): Promise<ListedCredential & { shadowed_by?: string }> {
    const { name, type, data } = given;
    const key = this.#requireKey(`credential '${name}' is not stored`);
    const sealed = { name, type, data: seal(key, name, data), key_id: key.key_id };
    const saved = await saveCredential(this.#requireDatabase(), sealed);
    this.forget(name);
    const shadow = this.#local(name)?.source;
    return { ...saved, source: "database", ...(shadow && { shadowed_by: shadow }) };
  }

  async list(): Promise<ListedCredential[]> {
    const listed = new Map<string, ListedCredential>();
    const { database } = this.#options;
    const stored = database ? await listCredentials(database, LIMITS.listMax) : [];
    for (const row of stored) listed.set(row.name, { ...row, source: "database" });
    for (const [name, { type }] of this.#file) listed.set(name, { name, type, source: "file" });
    for (const [form, { type }] of this.#variables) {
      const name = [...listed.keys()].find(known => variableForm(known) === form) ?? form;
      listed.set(name, { name, type, source: "environment" });
    }
    return [...listed.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** What other nodes may have said is of the database; an alias of this process wins over it. */
  async describe(name: string, broker: ServiceBroker): Promise<ListedCredential> {
    const local = this.#local(name);
    if (local) return { name, type: local.alias.type, source: local.source };
    const load = () => this.#describeStored(name);
    return remembered(broker, { key: metadataKey(name), ttl: METADATA_KEPT_SECONDS, load });
  }

  /** Never its data. */
  async #describeStored(name: string): Promise<ListedCredential> {
    const { database } = this.#options;
    const row = database && (await findCredential(database, name));
    if (!row) throw await this.#unknown(name);
    const { type, key_id, created_at, updated_at } = row;
    return { name, type, source: "database", key_id, created_at, updated_at };
  }

  async remove(name: string): Promise<void> {
    const removed = await removeCredential(this.#requireDatabase(), name);
    this.forget(name);
    if (!removed) throw await this.#unknown(name);
  }

  /** Callers at the same time share one look-up; a failure is not remembered. */
  resolve(alias: string): Promise<ResolvedCredential> {
    const nowMs = performance.now();
    const known = this.#cache.get(alias);
    if (known && known.untilMs > nowMs) return known.value;
    const value = this.#find(alias);
    const untilMs = nowMs + (this.#options.cacheMs ?? CACHE_MS);
    const entry = { untilMs, value };
    this.#cache.delete(alias);
    this.#cache.set(alias, entry);
    keepNewest(this.#cache, CACHE_MAX_ENTRIES);
    value.catch(() => {
      if (this.#cache.get(alias) === entry) this.#cache.delete(alias);
    });
    return value;
  }

  forget(name: string): void {
    this.#cache.delete(name);
  }

  async #find(alias: string): Promise<ResolvedCredential> {
    const local = this.#local(alias)?.alias;
    if (local) return { name: alias, type: local.type, data: local.data };
    const { database } = this.#options;
    const row = database && (await findCredential(database, alias));
    if (!row) throw await this.#unknown(alias);
    const key = this.#requireKey(`credential '${alias}' is stored sealed`);
    return { name: row.name, type: row.type, data: unseal(key, row) };
  }

  #local(name: string): { alias: Alias; source: "environment" | "file" } | undefined {
    const variable = this.#variables.get(variableForm(name));
    if (variable) return { alias: variable, source: "environment" };
    const alias = this.#file.get(name);
    return alias && { alias, source: "file" };
  }

  async #unknown(name: string): Promise<Rejected> {
    const known = (await this.list()).map(listed => listed.name);
    const near = nearest(name, known);
    const shown =
      known.slice(0, KNOWN_SHOWN).join(", ") + (known.length > KNOWN_SHOWN ? ", …" : "");
    const hint = near ? `did you mean '${near}'? ` : "";
    const add = `none is registered: noetl credential add ${name} --type TYPE --data JSON`;
    const others = known.length > 0 ? `known: ${shown}` : add;
    const message = `credential '${name}' is unknown (${hint}${others})`;
    return new Rejected(message, 404, { name, nearest: near, known: known.slice(0, KNOWN_SHOWN) });
  }

  #requireKey(what: string): SealingKey {
    if (this.#key) return this.#key;
    const hint = "set it (openssl rand -base64 32), or use NOETL_CREDENTIALS_FILE";
    throw new Rejected(`${what}, and NOETL_ENCRYPTION_KEY is not set; ${hint}`, 409);
  }

  #requireDatabase(): Query {
    if (this.#options.database) return this.#options.database;
    throw new Rejected("this process has no store for credentials", 409);
  }
}

export default credentials();
