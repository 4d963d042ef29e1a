/** Who may come in by HTTP: keys and their roles, and the Host header where no keys are asked. */
import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context, ServiceSchema } from "moleculer";
import { hostName, isLoopback, keysRequired, mayUse } from "../../schemas/access.ts";
import type { ApiRole } from "../../schemas/access.ts";
import { ANONYMOUS } from "../../schemas/caller.ts";
import type { Caller } from "../../schemas/caller.ts";
import type { Settings } from "../../schemas/env.ts";
import { errorType, Rejected } from "../../schemas/errors.ts";

/** Roles that an address is open to; `anyone` needs no key. */
export type OpenTo = readonly ApiRole[] | "anyone";

export type CallerContext = Context<unknown, Record<string, unknown>>;
/** The root call of moleculer-web: every HTTP request is one. */
export type Arrival = Context<{ req: IncomingMessage; res: ServerResponse }, { caller?: Caller }>;

export interface Gate {
  /**
   * For every request, before its body is read and its address is looked up: finds out who asks,
   * and puts that into `ctx.meta.caller`. Throws Rejected 401 without a key that is good, 403 for
   * a Host header that is not ours.
   */
  admit(arrival: Arrival): Promise<void>;
  /**
   * For every address that was found, before its handler. Addresses that name no roles serve
   * admins only. Throws Rejected 403 for another role.
   */
  authorize(ctx: CallerContext, roles: OpenTo | undefined): void;
  /**
   * For answers that take long: throws Rejected 401 when the request's key is no longer good. An
   * outage, Unavailable, says nothing about the key.
   */
  recheck(req: IncomingMessage): Promise<void>;
}

/** An alias of moleculer-web that says whom it serves. */
export function openTo<Handler>(roles: OpenTo, handler: Handler) {
  return { roles, handler };
}

/** What makes moleculer-web ask the gate. */
export function admission(gate: Gate): Partial<ServiceSchema> {
  async function rest(arrival: Arrival): Promise<void> {
    const { req, res } = arrival.params;
    // moleculer-web does both of these too, but only behind this: a refusal needs them as well.
    (req as { $ctx?: Arrival }).$ctx = arrival;
    if (arrival.requestID) res.setHeader("X-Request-ID", arrival.requestID);
    await gate.admit(arrival);
  }
  function authorize(ctx: CallerContext, ...found: [object, object, object, { roles?: OpenTo }]) {
    gate.authorize(ctx, found[3].roles);
  }
  return { hooks: { before: { rest } }, methods: { authorize } } as Partial<ServiceSchema>;
}

/** Probes come from a kubelet, by address and without a key. */
const PROBES = new Set(["/health", "/health/live"]);
/** What is not of this form is no key, without a look-up. */
const KEY_FORM = /^noetl_[\w-]{43}$/;
const HINT =
  "give noetl --api-key or NOETL_API_KEY; 'noetl key create NAME --role ROLE' makes a key";

/** The gate of an API that listens with these settings. */
export function createGate(http: Settings["http"]): Gate {
  const required = keysRequired(http);
  const guardsHost = !required && isLoopback(http.host);
  const hosts = new Set(http.allowedHosts.map(hostName));
  const checks = new WeakMap<IncomingMessage, () => Promise<Caller>>();

  function callerOf(ctx: Arrival, key: string | undefined): Promise<Caller> {
    if (key === undefined) throw new Rejected("This needs an API key", 401, { hint: HINT });
    // The digest goes to whoever knows the keys, so a key never leaves this process.
    const key_hash = createHash("sha256").update(key).digest("hex");
    const check = () => verified(() => ctx.broker.call("keys.verify", { key_hash }));
    checks.set(ctx.params.req, check);
    return KEY_FORM.test(key) ? check() : Promise.reject(unknownKey());
  }

  return {
    async admit(ctx) {
      const { req } = ctx.params;
      const key = takeKey(req);
      ctx.meta.caller = { name: ANONYMOUS };
      if (PROBES.has(pathOf(req)) || isPreflight(req, http)) return;
      if (req.method === "OPTIONS") throw nothingHere();
      if (required) ctx.meta.caller = await callerOf(ctx, key);
      else if (guardsHost) refuseForeignHost(req, hosts);
    },
    authorize(ctx, roles = []) {
      if (!required || roles === "anyone") return;
      const { name, role } = (ctx.meta["caller"] ?? {}) as Partial<Caller>;
      if (role === undefined) throw new Rejected("This needs an API key", 401, { hint: HINT });
      if (mayUse(role, roles)) return;
      const fitting = [...roles, "admin"].join(" or ");
      throw new Rejected(`This needs a key with the role ${fitting}; '${name}' is ${role}`, 403);
    },
    async recheck(req) {
      await checks.get(req)?.();
    },
  };
}

async function verified(verify: () => Promise<unknown>): Promise<Caller> {
  try {
    return (await verify()) as Caller;
  } catch (error) {
    // Whatever the reason of a refusal, the caller hears of its key only.
    throw errorType(error) === "REJECTED" ? unknownKey() : error;
  }
}

function unknownKey(): Rejected {
  return new Rejected("The API key is unknown or revoked", 401, { hint: HINT });
}

/** Takes the key out of the request, so that nothing behind can show it. */
function takeKey({ headers }: IncomingMessage): string | undefined {
  const bearer = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? "")?.[1];
  const other = headers["x-api-key"];
  delete headers.authorization;
  delete headers["x-api-key"];
  return bearer ?? (typeof other === "string" && other !== "" ? other : undefined);
}

function pathOf(req: IncomingMessage): string {
  return (req.url ?? "/").split("?")[0] ?? "/";
}

/** A browser asks without a key whether a page may send one; moleculer-web answers by itself. */
function isPreflight(req: IncomingMessage, { corsOrigins }: Settings["http"]): boolean {
  const asks = req.headers["access-control-request-method"] !== undefined;
  return req.method === "OPTIONS" && asks && corsOrigins.length > 0;
}

/** moleculer-web would take any other OPTIONS for the method that it asks about, and run it. */
function nothingHere(): Error {
  return Object.assign(new Error("There is nothing at this address"), { type: "NOT_FOUND" });
}

/**
 * A page whose name was made to point to this machine (DNS rebinding) is of the same origin as the
 * API, for its browser; but the Host header still has the page's name.
 */
function refuseForeignHost(req: IncomingMessage, allowed: ReadonlySet<string | undefined>): void {
  const host = req.headers.host ?? "";
  const name = hostName(host);
  if (isLoopback(host) || (name !== undefined && allowed.has(name))) return;
  const said = name === undefined ? "This Host header" : `The host name '${name}'`;
  throw new Rejected(`${said} is not of this machine; NOETL_ALLOWED_HOSTS lists others`, 403);
}
