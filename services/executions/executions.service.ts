// Executions: start, read, wait for and cancel runs of playbooks; the actor of each run.
import type { ActionSchema, Context, Service, ServiceBroker, ServiceSchema } from "moleculer";
import { createActorHost } from "../../mixins/actor.ts";
import { actorActions, actorPorts } from "../../mixins/actor-service.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { Address } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import {
  executionId,
  executionsCancel,
  executionsEvents,
  executionsList,
  executionsResult,
  executionsStart,
  executionsWait,
  validated,
} from "../../schemas/requests.ts";
import { cancelChildren, cancelExecution, resumeExecution } from "./control.ts";
import { executionMachine, type ExecutionInput } from "./machine.ts";
import { listEvents, listRows, readExecution, readResult, readStatus } from "./read.ts";
import type { ExecutionHost } from "./host.ts";
import { startExecution } from "./start.ts";
import { waitForExecution } from "./wait.ts";

/** The service `executions` over a process's runtime. */
export default function executionsService(runtime: Runtime): ServiceSchema {
  let host: ExecutionHost;

  return {
    name: "executions",
    actions: {
      ...actorActions(() => host),
      ...questions(runtime),
      ...requests(runtime, () => host),
      /** A message of another actor, acknowledged by the answer. */
      deliver: {
        visibility: "public",
        tracing: false,
        handler: (ctx: Context<Delivery>) => deliver(runtime, host, ctx.params),
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
      handler: validated(executionId, (_ctx: Context, p) => readStatus(runtime, p.execution_id)),
    },
    list: { handler: validated(executionsList, (_ctx: Context, p) => listRows(runtime, p)) },
    events: { handler: validated(executionsEvents, (_ctx: Context, p) => listEvents(runtime, p)) },
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
      handler: validated(executionsWait, (_ctx: Context, p) =>
        waitForExecution(runtime, host(), p),
      ),
    },
    /** Asks a run to end; it is CANCELLED when nothing of it can start any more. */
    cancel: {
      handler: validated(executionsCancel, (_ctx: Context, p) => cancelExecution(host(), p)),
    },
    /** Makes this node go on with an execution that was left, and its descendants. */
    resume: {
      handler: validated(executionId, (_ctx: Context, p) =>
        resumeExecution(runtime, p.execution_id),
      ),
    },
  };
}

interface Delivery {
  to: Address;
  input: ExecutionInput | { type: "cancel_children" };
}

async function deliver(runtime: Runtime, host: ExecutionHost, { to, input }: Delivery) {
  const { execution_id, stream_id } = to;
  if (input.type === "cancel_children") return cancelChildren(runtime, host, execution_id);
  const answer = await host.send({ execution_id, stream_id }, input);
  return { changed: answer.changed };
}

function createHost(runtime: Runtime, broker: ServiceBroker): ExecutionHost {
  const ports = actorPorts(runtime, broker, "executions");
  return createActorHost({
    ...ports,
    machine: executionMachine,
    mustProve: input => input.type === "describe",
    committed(events: StoredEvent[]) {
      ports.committed(events);
      announce(events, (name, payload) => {
        void broker.broadcast(name, payload).catch(() => undefined);
      });
    },
  });
}

const ANNOUNCED = new Map([
  ["playbook.completed", "execution.completed"],
  ["playbook.failed", "execution.failed"],
  ["execution.cancelled", "execution.cancelled"],
]);

/** The end of a run, told to every Moleculer service that listens: ids only. */
function announce(events: StoredEvent[], broadcast: (name: string, payload: object) => void): void {
  for (const event of events) {
    const name = ANNOUNCED.get(event.event_type);
    if (name !== undefined) broadcast(name, { execution_id: event.execution_id, at: event.at });
  }
}
