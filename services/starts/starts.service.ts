// Starts: Moleculer events that start playbooks, one server of many for each.
import { createHash } from "node:crypto";
import { Utils } from "moleculer";
import type { Context, EventSchema, Service, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { backoffMs } from "../../mixins/clock.ts";
import { Rejected } from "../../schemas/errors.ts";
import { isObject } from "../../schemas/json.ts";

/** One server of those that listen gets an emitted event. */
const GROUP = "noetl.starts";
/** Its params are those of `executions.start`. */
const START_EVENT = "noetl.start";
/** What the runtime itself tells: a playbook that it starts would start it again, for ever. */
const OUR_EVENTS = [
  START_EVENT,
  ...["completed", "failed", "cancelled"].map(end => `execution.${end}`),
  "loop.done",
];
/** Tries of a start while the store or a server is away: an event comes only once. */
const TRIES_MAX = 6;
const BACKOFF_MS = 500;
const BACKOFF_MAX_MS = 10_000;

type StartParams = Record<string, unknown>;

/**
 * The service `starts` over a process's runtime: `noetl.start` and what NOETL_EVENT_STARTS names.
 * Throws Rejected for a pattern that our own events match.
 */
export default function startsService(runtime: Runtime): ServiceSchema {
  const wanted = Map.groupBy(runtime.settings.starts.events, ({ name }) => name);
  const events: Record<string, EventSchema> = {
    [START_EVENT]: listener(runtime, ctx => [isObject(ctx.params) ? ctx.params : {}]),
  };
  for (const [pattern, starts] of wanted) {
    refuseOurs(pattern);
    events[pattern] = listener(runtime, ctx =>
      starts.map(({ value: path }) => ({ path, payload: payloadOf(ctx.params) })),
    );
  }
  return { name: "starts", events };
}

function refuseOurs(pattern: string): void {
  const ours = OUR_EVENTS.find(name => Utils.match(name, pattern));
  if (ours === undefined) return;
  const message = `NOETL_EVENT_STARTS: '${pattern}' would start a playbook on every ${ours}`;
  throw new Rejected(`${message}; expected events of other services`, 422);
}

function payloadOf(params: unknown): Record<string, unknown> {
  return isObject(params) ? params : { event: params ?? null };
}

function listener(runtime: Runtime, startsOf: (ctx: Context) => StartParams[]): EventSchema {
  return {
    group: GROUP,
    async handler(this: Service, ctx: Context) {
      await Promise.all(startsOf(ctx).map(params => start(this, runtime, ctx, params)));
    },
  };
}

/** Starts one playbook, or says why not: nobody waits for the answer of an event. */
async function start(
  service: Service,
  runtime: Runtime,
  ctx: Context,
  params: StartParams,
): Promise<void> {
  const event = ctx.eventName ?? "";
  const request = { idempotency_key: keyOf(ctx, params), ...params };
  for (let tries = 1; ; tries += 1) {
    try {
      const { execution_id, created } = await ctx.call<
        { execution_id: string; created: boolean },
        StartParams
      >("executions.start", request);
      return service.logger.info({ event, execution_id, created }, "event.started");
    } catch (error) {
      const { retryable, message } = error as { retryable?: boolean; message: string };
      if (retryable !== true || tries >= TRIES_MAX) {
        return service.logger.error({ event, err: error, tries }, "event.start_failed");
      }
      service.logger.warn({ event, reason: message, tries }, "event.start_retried");
      await runtime.clock.sleep(backoffMs(tries, BACKOFF_MS, BACKOFF_MAX_MS));
    }
  }
}

/**
 * One key for every delivery of one event. A receiver's `ctx.id` is its own, so the event is named
 * by the request it was emitted in, its name and its params; `meta.idempotency_key` stands for the
 * request where there is one: a durable step that is repeated emits the same event again.
 */
function keyOf(ctx: Context, params: StartParams): string {
  const { idempotency_key } = ctx.meta as { idempotency_key?: unknown };
  const origin = typeof idempotency_key === "string" ? idempotency_key : ctx.requestID;
  const parts = JSON.stringify([origin, ctx.eventName, params]);
  return `event:${createHash("sha256").update(parts).digest("hex")}`;
}
