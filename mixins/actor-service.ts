// The actions every actor service has: claims, outcomes and releases from workers, messages, and
// wake-ups.
import type { Context, ActionSchema, ServiceBroker } from "moleculer";
import type { z } from "zod";
import {
  BATCH_MAX,
  claimBatch,
  claimEntry,
  outcomeEntry,
  readEntry,
  releaseBatch,
  releaseEntry,
  reportBatch,
  wakeBatch,
  wakeEntry,
} from "../schemas/actor-requests.ts";
import type { ClaimInput, OutcomeInput, ReleaseInput } from "../schemas/command.ts";
import type { ActorKind, Address, MessageInput, Ring } from "../schemas/decider.ts";
import { busyWaitMs, errorType } from "../schemas/errors.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import { validated } from "../schemas/requests.ts";
import type { ActorHost, ActorOptions } from "./actor.ts";
import type { StreamName } from "./event-store.ts";
import { createForward } from "./forwarding.ts";
import { jsonSize, MESSAGE_BYTES_MAX, splitBySize } from "./json-size.ts";
import { callOwner, ownedId } from "./routing.ts";
import type { Runtime } from "./runtime.ts";

/** One entry of a batch: the stream it is for, and the input without its type. */
export type ClaimRequest = StreamName &
  Omit<ClaimInput, "type" | "worker_id" | "incarnation" | "claim_id">;
export type OutcomeRequest = StreamName & Omit<OutcomeInput, "type">;
export type ReleaseRequest = StreamName & Omit<ReleaseInput, "type">;

export interface ClaimBatch {
  worker_id: string;
  incarnation: string;
  claim_id: string;
  claims: ClaimRequest[];
}

/** What became of one entry of a batch. `refused` is final; `failed` may be sent again. */
export type Reply<T = object> =
  | ({ command_id: string; status: "ok" } & T)
  | { command_id: string; status: "refused"; reason: string; message: string }
  | { command_id: string; status: "failed"; error: string; retry_after_ms?: number };

/** A worker that does not say in this time what it holds has said nothing. */
const HOLDS_MS = 2_000;

type AnyHost = ActorHost<never, { grant?: Grant }>;

/** Ports of an actor host over a process's runtime and its broker. */
export function actorPorts(runtime: Runtime, broker: ServiceBroker, kind: ActorKind) {
  const { settings, store, clock, ids, values, dispatch, feed, nodeId: owner } = runtime;
  const { snapshotEvents } = runtime;
  const logger = broker.getLogger(kind);
  return {
    kind,
    owner,
    store,
    ...(snapshotEvents !== undefined && { snapshotEvents }),
    clock,
    ids,
    // A loop runs where its execution does, when it can.
    streamIds: { next: () => ownedId(ids, broker, "loops") },
    values,
    settings: {
      lease_ms: settings.command.leaseMs,
      rering_ms: settings.command.reRingMs,
      max_attempts: settings.command.maxAttempts,
      heartbeat_timeout_ms: settings.command.heartbeatTimeoutMs,
    },
    ring: (ring: Ring, again: boolean) => dispatch.ring(ring, again),
    deliver: (to: Address, input: MessageInput) =>
      callOwner(broker, to.stream_id, {
        service: to.actor,
        action: "deliver",
        params: { to, input },
        timeoutMs: 30_000,
      }),
    async holds(nodeID: string, incarnation: string, commandIds: string[]) {
      try {
        const held: string[] = [];
        for (const command_ids of splitBySize(commandIds, MESSAGE_BYTES_MAX, BATCH_MAX)) {
          const params = { incarnation, command_ids };
          const options = { nodeID, timeout: HOLDS_MS };
          held.push(...(await broker.call<string[], object>("worker.holds", params, options)));
        }
        return held;
      } catch {
        // Silence proves nothing: only the worker's row in `runtime` says that it is dead.
        return undefined;
      }
    },
    forward: createForward(broker, kind),
    committed: feed.push,
    warn(error: unknown, stream: StreamName) {
      const type = errorType(error);
      logger.warn({ ...stream, err: error, type }, "actor.retry_later");
    },
    failed(error: unknown, stream: StreamName, failures: number) {
      logger.error({ ...stream, err: error, failures }, "actor.turn_failed");
    },
  } satisfies Partial<ActorOptions<unknown, never, unknown>>;
}

/** Grants of one answer that crosses NATS, whose messages have at most 1 MB by default. */
export const ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX;

type Entry = StreamName & { command_id: string };
type Send = (stream: StreamName, input: object) => Promise<{ grant?: Grant }>;

/** Every entry by itself: one that is bad, or whose stream fails, has no neighbours. */
function each<Shape extends z.ZodType<Entry>>(
  send: Send,
  entries: unknown[],
  shape: Shape,
  toInput: (entry: z.output<Shape>) => object,
): Promise<Reply[]> {
  return Promise.all(
    entries.map(async (raw, index): Promise<Reply> => {
      const asked = (raw as { command_id?: unknown } | null)?.command_id;
      const command_id = typeof asked === "string" ? asked : "";
      try {
        const entry = readEntry(shape, raw, index);
        const { execution_id, stream_id } = entry;
        const answer = await send({ execution_id, stream_id }, toInput(entry));
        return { command_id, status: "ok", ...(answer.grant && { grant: answer.grant }) };
      } catch (error) {
        return toReply(command_id, error);
      }
    }),
  );
}

/**
 * An answer that fits into a message: grants that have no room are asked for again, and are the
 * same then (design §5 rule 4). The first one goes out however large it is.
 */
export function fitting(replies: Reply<{ grant?: Grant }>[]): Reply<{ grant?: Grant }>[] {
  let bytes = 0;
  return replies.map(reply => {
    if (reply.status !== "ok" || !reply.grant) return reply;
    const size = jsonSize(reply.grant);
    if (bytes > 0 && bytes + size > ANSWER_BYTES_MAX) {
      const { command_id } = reply;
      return { command_id, status: "failed", error: "the answer is full: ask again" };
    }
    bytes += size;
    return reply;
  });
}

/** The actions by which workers, other actors and the reaper reach the streams of one kind. */
export function actorActions(
  host: () => unknown,
  { ingest }: Pick<Runtime, "ingest">,
): Record<string, ActionSchema> {
  /** The meta of a request says whether another node has sent its inputs on. */
  function sender({ meta }: Context): Send {
    const { forwarded } = meta as { forwarded?: unknown };
    return (stream, input) =>
      (host() as AnyHost).send(stream, input as never, undefined, forwarded === true);
  }

  /** Inside one process an answer has no limit. */
  function answered(ctx: Context, replies: Reply[]): Reply[] {
    return ctx.nodeID === ctx.broker.nodeID ? replies : fitting(replies);
  }

  return {
    claim: {
      visibility: "public",
      tracing: false,
      handler: validated(claimBatch, async (ctx: Context, { claims, ...claimant }) => {
        const replies = await each(sender(ctx), claims, claimEntry, ({ command_id }) => {
          return { type: "claim", command_id, ...claimant };
        });
        return answered(ctx, replies);
      }),
    },
    report: {
      visibility: "public",
      tracing: false,
      handler: validated(reportBatch, async (ctx: Context, { outcomes }) => {
        const decided = () =>
          each(sender(ctx), outcomes, outcomeEntry, outcome => ({ ...outcome, type: "outcome" }));
        return answered(ctx, await ingest.run(outcomes.length, decided));
      }),
    },
    release: {
      visibility: "public",
      tracing: false,
      handler: validated(releaseBatch, (ctx: Context, { releases }) =>
        each(sender(ctx), releases, releaseEntry, release => ({ ...release, type: "release" })),
      ),
    },
    wake: {
      visibility: "public",
      tracing: false,
      handler: validated(wakeBatch, async (ctx: Context, { streams }) => {
        const send = sender(ctx);
        const woken = streams.map(async (entry, index) =>
          send(readEntry(wakeEntry, entry, index), { type: "wake" }),
        );
        const ends = await Promise.allSettled(woken);
        return { woken: ends.filter(end => end.status === "fulfilled").length };
      }),
    },
  };
}

function toReply(command_id: string, error: unknown): Reply {
  if (errorType(error) !== "REJECTED") return failedReply(command_id, error);
  const message = error instanceof Error ? error.message : String(error);
  const { data, code } = error as { data?: { reason?: string }; code?: number };
  const reason = data?.reason ?? (code === 422 ? "malformed" : "refused");
  return { command_id, status: "refused", reason, message };
}

/** Nobody has settled it: it may come again, of a Busy one not before the time it says. */
export function failedReply(command_id: string, error: unknown): Reply {
  const message = error instanceof Error ? error.message : String(error);
  const retry_after_ms = busyWaitMs(error);
  return {
    command_id,
    status: "failed",
    error: message,
    ...(retry_after_ms && { retry_after_ms }),
  };
}
