// Who asked for a run, and what of their context goes with it: to its actions and its children.
import type { Context } from "moleculer";
import { requestedBy } from "../../schemas/caller.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { StartCaller } from "../../schemas/frozen-scope.ts";
import { isObject, type Json, type JsonObject } from "../../schemas/json.ts";
import { isSecretName } from "../../schemas/secret-names.ts";

/** Carried meta of one execution at most, all keys together, as JSON: it travels with commands. */
const META_BYTES_MAX = 2_048;

/**
 * Who asks for a start. A child is asked for by who asked for its parent, unless a key of another
 * role than the workers' asks for it: over HTTP anybody may name a parent.
 * Throws Rejected 422 when the context carries what cannot go with an execution.
 */
export function askerOf(
  ctx: Pick<Context, "meta" | "requestID">,
  metaKeys: readonly string[],
  parent?: StartCaller,
): StartCaller {
  const meta = carriedMeta(isObject(ctx.meta) ? ctx.meta : {}, metaKeys);
  const own = { ...requestedBy(ctx), ...(meta && { meta }) };
  return parent && !hasOwnKey(ctx.meta) ? { ...parent, ...(meta && { meta }) } : own;
}

function hasOwnKey(meta: unknown): boolean {
  const caller = isObject(meta) ? meta["caller"] : undefined;
  const role = isObject(caller) ? caller["role"] : undefined;
  return role !== undefined && role !== "worker";
}

function carriedMeta(meta: Record<string, unknown>, keys: readonly string[]) {
  const carried: JsonObject = {};
  for (const key of keys) {
    const value = asJson(key, meta[key]);
    if (value !== undefined && value !== null) carried[key] = value;
  }
  const bytes = Buffer.byteLength(JSON.stringify(carried));
  if (bytes > META_BYTES_MAX) {
    const names = Object.keys(carried).join(", ");
    const message = `ctx.meta carries ${bytes} bytes in ${names}`;
    throw new Rejected(`${message}, expected at most ${META_BYTES_MAX}`, 422, {
      bytes,
      bytes_max: META_BYTES_MAX,
    });
  }
  return Object.keys(carried).length > 0 ? carried : undefined;
}

function asJson(key: string, value: unknown): Json | undefined {
  let text: string | undefined;
  try {
    text = JSON.stringify(value, refuseSecrets);
  } catch (error) {
    if (error instanceof Rejected) throw error;
    throw new Rejected(`ctx.meta.${key} is not JSON`, 422);
  }
  return text === undefined ? undefined : (JSON.parse(text) as Json);
}

/** Events keep what is carried for ever, so nothing that is called a secret may be in it. */
function refuseSecrets(name: string, value: unknown): unknown {
  if (!isSecretName(name)) return value;
  throw new Rejected(
    `ctx.meta has '${name}' in what goes with the execution: it looks secret`,
    422,
  );
}
