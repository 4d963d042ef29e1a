// Executions: start, read, wait for and cancel runs of playbooks; the actor of each run.
import type { ActionSchema, Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import { createActorHost } from "../../mixins/actor.ts";
import { countActors } from "../../mixins/actor-metrics.ts";
import { actorActions, actorPorts } from "../../mixins/actor-service.ts";
import { assignPorts } from "../../mixins/assign-ports.ts";
import { forget, remembered } from "../../mixins/cacher/remembered.ts";
import { abortsOf } from "../../mixins/cancelled-work.ts";
import { VERIFY_MS_MAX } from "../../mixins/postgres/verify.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { executionsDeliver, type ExecutionsDeliver } from "../../schemas/actor-requests.ts";
import { requestedBy } from "../../schemas/caller.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import {
  LIMITS,
  executionId,
  executionsCancel,
  executionsDeadLetters,
  executionsEvents,
  executionsFailures,
  executionsList,
  executionsPause,
  executionsRedrive,
  executionsResult,
  executionsResume,
  executionsStart,
  executionsTail,
  executionsWait,
  validated,
} from "../../schemas/requests.ts";
import { announcements } from "./announce.ts";
import { cancelChildren, cancelExecution } from "./control.ts";
import { countExecutions, countQuarantined } from "./count.ts";
import { listFailures, redriveExecution } from "./failures.ts";
import { follow } from "./follow.ts";
import { executionMachine } from "./machine.ts";
import {
  listEvents,
  listQuarantined,
  listRows,
  readExecution,
  readResult,
  readStatus,
} from "./read.ts";
import { pauseExecution, pauseFamily, resumeExecution, resumeFamily, type Asking } from "./hold.ts";
import type { ExecutionHost } from "./host.ts";
import { startExecution } from "./start.ts";
import type { ExecutionState } from "./state.ts";
import { tailExecution } from "./tail.ts";
import { verify } from "./verify.ts";
import { endedHere, waitForExecution } from "./wait.ts";

/** The default of a call is shorter than what these callers may ask to wait for. */
const PATIENT = {
  timeout: LIMITS.waitMaxMs + 5_000,
  // Whoever waits costs nothing: the bulkhead of an app must not make others wait for them.
  bulkhead: { enabled: false },
};

/** An end is asked for by many who wait for it. A redrive forgets it. */
const STATUS_KEPT_SECONDS = 10;

function statusKey(executionId: string): string {
  return `executions.status:${executionId}`;
}

/** A proof may be a long read: one at a time, and few that wait for their turn. */
const PROVING = {
  timeout: VERIFY_MS_MAX + 5_000,
  bulkhead: { enabled: true, concurrency: 1, maxQueueSize: 8 },
};

/** The service `executions` over a process's runtime. */
export default function executionsService(runtime: Runtime): ServiceSchema {
  let host: ExecutionHost;

  return {
    name: "executions",
    actions: {
      ...actorActions(() => host, runtime),
      ...questions(runtime),
      ...requests(runtime, () => host),
      /** A message of another actor, acknowledged by the answer. */
      deliver: {
        visibility: "public",
        tracing: false,
        handler: validated(executionsDeliver, ({ broker }: Context, p) =>
          deliver({ runtime, host, broker }, p),
        ),
      },
    },
    created(this: Service) {
      host = createHost(runtime, this.broker);
    },
    async stopped() {
      await host.stop();
    },
  };
}

/** What reads rows and the log, and decides nothing. */
function questions(runtime: Runtime): Record<string, ActionSchema> {
  return {
    /** One row of the projection. */
    get: {
      handler: validated(executionId, (_ctx: Context, p) => readExecution(runtime, p.execution_id)),
    },
    status: {
      handler: validated(executionId, ({ broker }: Context, p) =>
        remembered(broker, {
          key: statusKey(p.execution_id),
          ttl: STATUS_KEPT_SECONDS,
          load: () => readStatus(runtime, p.execution_id),
          // What runs is never shown as it was.
          isLasting: ({ completed, failed, is_cancelled }) => completed || failed || is_cancelled,
        }),
      ),
    },
    list: { handler: validated(executionsList, (_ctx: Context, p) => listRows(runtime, p)) },
    events: { handler: validated(executionsEvents, (_ctx: Context, p) => listEvents(runtime, p)) },
    /** What is new since the caller's last look, or a wait until something is. */
    tail: {
      ...PATIENT,
      handler: validated(executionsTail, (ctx: Context, p) =>
        tailExecution(runtime, p, () => ctx.broker.stopping),
      ),
    },
    /** What the log proves of itself: every rule of it, recomputed by the database. */
    verify: {
      ...PROVING,
      handler: validated(executionId, (_ctx: Context, p) => verify(runtime, p.execution_id)),
    },
    /** Items of a loop that failed, by index, with their errors. */
    failures: {
      handler: validated(executionsFailures, (_ctx: Context, p) => listFailures(runtime, p)),
    },
    /** Commands that were given up because their workers died. */
    dead_letters: {
      handler: validated(executionsDeadLetters, (_ctx: Context, p) => listQuarantined(runtime, p)),
    },
    /** The result of a step that has finished, or of the last one. */
    result: {
      handler: validated(executionsResult, (_ctx: Context, p) => readResult(runtime, p)),
    },
  };
}

/** What asks an execution for something. */
function requests(runtime: Runtime, host: () => ExecutionHost): Record<string, ActionSchema> {
  return {
    /** Starts a run. The same idempotency key with the same request answers the same one. */
    start: {
      handler: validated(executionsStart, (ctx: Context, request) =>
        startExecution(runtime, host(), ctx, request),
      ),
    },
    /** Answers when the run has ended, or at the timeout with its status then. */
    wait: {
      ...PATIENT,
      handler: validated(executionsWait, ({ broker }: Context, p) =>
        waitForExecution({ runtime, host: host(), broker }, p),
      ),
    },
    /** The same at the owner of the run, for a node that is waited at. */
    ended: {
      ...PATIENT,
      visibility: "public",
      tracing: false,
      handler: validated(executionsWait, ({ broker }: Context, p) =>
        endedHere({ runtime, host: host(), broker }, p),
      ),
    },
    /** Asks a run to end; it is CANCELLED when nothing of it can start any more. */
    cancel: {
      handler: validated(executionsCancel, (ctx: Context, p) =>
        cancelExecution(host(), p, requestedBy(ctx)),
      ),
    },
    /** Runs again what failed of a run that has ended. */
    redrive: {
      handler: validated(executionsRedrive, async (ctx: Context, p) => {
        const answer = await redriveExecution(runtime, host(), p, requestedBy(ctx));
        await forget(ctx.broker, statusKey(p.execution_id));
        return answer;
      }),
    },
    /** Asks a run to begin nothing more; what runs finishes. */
    pause: {
      handler: validated(executionsPause, (ctx: Context, p) =>
        pauseExecution({ runtime, host: host(), broker: ctx.broker }, p, requestedBy(ctx)),
      ),
    },
    /** Goes on with a run that was paused, or left, and with its descendants. */
    resume: {
      handler: validated(executionsResume, (ctx: Context, p) =>
        resumeExecution({ runtime, host: host(), broker: ctx.broker }, p, requestedBy(ctx)),
      ),
    },
  };
}

async function deliver(asking: Asking, { to, input }: ExecutionsDeliver) {
  const { runtime, host } = asking;
  const { execution_id, stream_id } = to;
  switch (input.type) {
    case "cancel_children":
      return cancelChildren(runtime, host, execution_id);
    case "pause_family":
      return pauseFamily(asking, execution_id);
    case "resume_family":
      return resumeFamily(asking, execution_id, input.by);
    case "follow":
      return follow(asking, execution_id, input);
    case "loop_done": {
      const answer = await host.send({ execution_id, stream_id }, input);
      return { changed: answer.changed };
    }
  }
}

/**
 * Reads, and messages that find nothing to change where they are not expected yet: the owner may
 * only not know what another node has decided.
 */
const PROVED: ReadonlySet<string> = new Set([
  "describe",
  "loop_done",
  "children_gone",
  "family_paused",
]);

function createHost(runtime: Runtime, broker: ServiceBroker): ExecutionHost {
  const ports = actorPorts(runtime, broker, "executions");
  const abort = abortsOf(broker);
  const count = countExecutions(runtime.metrics);
  runtime.feed.subscribe(countQuarantined(runtime.metrics));
  const host = createActorHost({
    ...ports,
    assign: assignPorts(runtime, broker, "executions"),
    machine: executionMachine,
    mustProve: input => PROVED.has(input.type),
    committed(events: StoredEvent[], state: ExecutionState) {
      ports.committed(events);
      count(events);
      abort(events);
      for (const { name, payload } of announcements(events, state)) {
        void broker.broadcast(name, payload).catch(() => undefined);
      }
    },
  });
  countActors(runtime.metrics, "executions", host);
  return host;
}
