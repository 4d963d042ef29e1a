// The actions every actor service has: claims, outcomes and releases from workers, messages, and
// wake-ups.
import type { Context, ActionSchema, ServiceBroker } from "moleculer";
import type { ClaimInput, OutcomeInput, ReleaseInput } from "../schemas/command.ts";
import type { ActorKind, Address, MessageInput, Ring } from "../schemas/decider.ts";
import { errorType } from "../schemas/errors.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import type { ActorHost, ActorOptions } from "./actor.ts";
import type { StreamName } from "./event-store.ts";
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
  | { command_id: string; status: "failed"; error: string };

type AnyHost = ActorHost<never, { grant?: Grant }>;

/** Ports of an actor host over a process's runtime and its broker. */
export function actorPorts(runtime: Runtime, broker: ServiceBroker, kind: ActorKind) {
  const { settings, store, clock, ids, values, doorbell, feed, nodeId: owner } = runtime;
  const logger = broker.getLogger(kind);
  return {
    kind,
    owner,
    store,
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
    ring: (ring: Ring) => doorbell.ring(ring),
    deliver: (to: Address, input: MessageInput) =>
      callOwner(broker, to.stream_id, {
        service: to.actor,
        action: "deliver",
        params: { to, input },
        timeoutMs: 30_000,
      }),
    async holds(nodeID: string, incarnation: string, command_ids: string[]) {
      try {
        const params = { incarnation, command_ids };
        return await broker.call<string[], object>("worker.holds", params, {
          nodeID,
          timeout: 2_000,
        });
      } catch {
        // Silence proves nothing: only the worker's row in `runtime` says that it is dead.
        return undefined;
      }
    },
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

/** The actions by which workers, other actors and the reaper reach the streams of one kind. */
export function actorActions(host: () => unknown): Record<string, ActionSchema> {
  const streams = host as () => AnyHost;

  async function each<T extends StreamName & { command_id: string }>(
    items: T[],
    toInput: (item: T) => object,
  ): Promise<Reply[]> {
    return Promise.all(
      items.map(async (item): Promise<Reply> => {
        const { execution_id, stream_id, command_id } = item;
        try {
          const answer = await streams().send({ execution_id, stream_id }, toInput(item) as never);
          return { command_id, status: "ok", ...(answer.grant && { grant: answer.grant }) };
        } catch (error) {
          return toReply(command_id, error);
        }
      }),
    );
  }

  return {
    claim: {
      visibility: "public",
      tracing: false,
      async handler(ctx: Context<ClaimBatch>) {
        const { worker_id, incarnation, claim_id, claims } = ctx.params;
        return each(claims, ({ command_id }) => {
          return { type: "claim", command_id, worker_id, incarnation, claim_id };
        });
      },
    },
    report: {
      visibility: "public",
      tracing: false,
      async handler(ctx: Context<{ outcomes: OutcomeRequest[] }>) {
        return each(ctx.params.outcomes, outcome => ({ ...outcome, type: "outcome" }));
      },
    },
    release: {
      visibility: "public",
      tracing: false,
      async handler(ctx: Context<{ releases: ReleaseRequest[] }>) {
        return each(ctx.params.releases, release => ({ ...release, type: "release" }));
      },
    },
    wake: {
      visibility: "public",
      tracing: false,
      async handler(ctx: Context<{ streams: StreamName[] }>) {
        const woken = ctx.params.streams.map(({ execution_id, stream_id }) =>
          streams().send({ execution_id, stream_id }, { type: "wake" } as never),
        );
        const ends = await Promise.allSettled(woken);
        return { woken: ends.filter(end => end.status === "fulfilled").length };
      },
    },
  };
}

function toReply(command_id: string, error: unknown): Reply {
  const message = error instanceof Error ? error.message : String(error);
  if (errorType(error) !== "REJECTED") return { command_id, status: "failed", error: message };
  const data = (error as { data?: { reason?: string } }).data;
  return { command_id, status: "refused", reason: data?.reason ?? "refused", message };
}
