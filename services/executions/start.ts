// Starting a run: which playbook, which key, and one append that makes it exist.
import { createHash } from "node:crypto";
import type { Context } from "moleculer";
import { ownedId } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { Conflict, Rejected, Unavailable } from "../../schemas/errors.ts";
import type { PlaybookPin } from "../../schemas/frozen-scope.ts";
import type { JsonObject } from "../../schemas/json.ts";
import type { ExecutionsStart } from "../../schemas/requests.ts";
import { durationMs } from "../../schemas/playbook/duration.ts";
import { askerOf } from "./asker.ts";
import { goingPause } from "./hold.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import type { ExecutionAnswer } from "./machine.ts";

/** How long an idempotency key answers with its execution. */
const KEY_TTL_SECONDS = 7 * 24 * 3_600;

export interface Started {
  execution_id: string;
  status: string;
  path: string;
  version: number;
  /** false when an idempotency key answered with an execution that was there. */
  created: boolean;
}

/** Starts a run, or finds the one its idempotency key names. Throws Rejected 404, 409 and 422. */
export async function startExecution(
  runtime: Runtime,
  host: ExecutionHost,
  ctx: Context,
  request: ExecutionsStart,
): Promise<Started> {
  const playbook = await pin(ctx, request);
  const execution_id = ownedId(runtime.ids, ctx.broker, "executions");
  const { parent_execution_id, idempotency_key: key } = request;
  const parent =
    parent_execution_id === undefined ? undefined : await liveParent(host, parent_execution_id);
  const paused_by = goingPause(parent);
  const timeout_ms = durationMs(request.timeout);
  const caller = askerOf(ctx, runtime.settings.starts.metaKeys, parent?.caller);
  const payload = (request.payload ?? {}) as JsonObject;
  const request_hash = hashOf([playbook.path, playbook.hash, payload, parent_execution_id ?? null]);
  try {
    const answer = await host.send(
      streamOf(execution_id),
      {
        type: "start",
        execution_id,
        playbook,
        payload,
        parent_execution_id,
        start_key: key,
        caller,
        ...(timeout_ms !== undefined && { timeout_ms }),
        ...(paused_by !== undefined && { paused_by }),
      },
      {
        path: playbook.path,
        playbook_version: playbook.version,
        hash: playbook.hash,
        parent_execution_id,
        ...(key === undefined ? {} : { key, request_hash, key_ttl_seconds: KEY_TTL_SECONDS }),
      },
    );
    const { path, version } = playbook;
    return { execution_id, status: answer.status, path, version, created: true };
  } catch (error) {
    if (key === undefined || !(error instanceof Conflict)) throw error;
    return existing(runtime, host, { key, request_hash, playbook });
  }
}

/** A parent that is being cancelled has no new children: they would be left behind. */
async function liveParent(host: ExecutionHost, parentId: string): Promise<ExecutionAnswer> {
  const parent = await host.send(streamOf(parentId), { type: "describe" });
  if (parent.status !== "CANCELLED" && !parent.cancelling) return parent;
  throw new Rejected(`parent execution ${parentId} is cancelled`, 409, { status: "CANCELLED" });
}

/** The playbook to run: text is registered first, a path is looked up. */
async function pin(ctx: Context, request: ExecutionsStart): Promise<PlaybookPin> {
  const { path, version, playbook } = request;
  const found: PlaybookPin =
    playbook === undefined
      ? await ctx.call("catalog.get", { path, version })
      : await ctx.call("catalog.register", { content: playbook });
  return { path: found.path, version: found.version, hash: found.hash };
}

async function existing(
  runtime: Runtime,
  host: ExecutionHost,
  wanted: { key: string; request_hash: string; playbook: PlaybookPin },
): Promise<Started> {
  const start = await runtime.store.findStart(wanted.key);
  if (!start) throw new Unavailable("the key of this start is being decided; try again");
  if (start.request_hash !== wanted.request_hash) {
    throw new Rejected(`idempotency key '${wanted.key}' was used for another request`, 409, {
      execution_id: start.execution_id,
    });
  }
  const { execution_id } = start;
  const answer = await host.send(streamOf(execution_id), { type: "describe" });
  const { path, version } = wanted.playbook;
  return { execution_id, status: answer.status, path, version, created: false };
}

function hashOf(parts: unknown[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
