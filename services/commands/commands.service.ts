// Commands: the door for workers that the doorbell does not reach, and for workers of others. It
// keeps no state and decides nothing: owners of streams do.
import type { Context, Service, ServiceSchema } from "moleculer";
import { EventIntake } from "../../mixins/event-intake.ts";
import { findCommand } from "../../mixins/postgres/command.ts";
import { REFERENCE_PREFIX } from "../../mixins/result-store/index.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import {
  commandsClaim,
  commandsGet,
  commandsReport,
  commandsReportOne,
  commandsValue,
  commandsWaiting,
  type CommandsValue,
  type CommandsWaiting,
} from "../../schemas/command-requests.ts";
import type { Ring } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { Json } from "../../schemas/json.ts";
import { validated } from "../../schemas/requests.ts";
import { claimCommand } from "./claim.ts";
import { takeMessages, type IntakeCounters } from "./intake.ts";
import { reportEvents, reportOne } from "./report.ts";

/** A ring that found nobody within this is told to whoever asks. */
const SILENT_MS = 300;
/** How often an asker's wait looks whether a ring has become old enough. */
const LOOK_MS = 100;

/** The service `commands` over a process's runtime. */
export default function commandsService(runtime: Runtime): ServiceSchema {
  let intake: EventIntake | undefined;
  return {
    name: "commands",
    actions: {
      /** Rings of commands that wait for a worker, as this node knows them. */
      waiting: {
        tracing: false,
        timeout: 0,
        handler: validated(commandsWaiting, (_ctx: Context, p) => waiting(runtime, p)),
      },
      /** One command: issued by which stream, and how it ended. */
      get: {
        handler: validated(commandsGet, (_ctx: Context, p) => get(runtime, p.command_id)),
      },
      /** Takes a command. The same claim_id is answered again. Throws Rejected 404 and 409. */
      claim: {
        handler: validated(commandsClaim, function (this: Service, _ctx: Context, p) {
          return claimCommand(runtime, this.broker, p);
        }),
      },
      /** A value that a grant names. Throws Rejected 404: gone, 403: another execution's. */
      value: {
        handler: validated(commandsValue, (_ctx: Context, p) => valueOf(runtime, p)),
      },
      /** What a worker has to say about its commands, entry by entry. */
      report: {
        handler: validated(commandsReport, function (this: Service, _ctx: Context, p) {
          return reportEvents(runtime, this.broker, p.events);
        }),
      },
      report_one: {
        handler: validated(commandsReportOne, function (this: Service, _ctx: Context, p) {
          return reportOne(runtime, this.broker, p);
        }),
      },
    },
    created(this: Service) {
      intake = intakeOf(runtime, this);
    },
    started: () => Promise.resolve(intake?.start()),
    stopped: () => Promise.resolve(intake?.stop()),
  } as ServiceSchema;
}

/** Takes what workers say over JetStream, where there is one. */
function intakeOf(runtime: Runtime, { broker, logger }: Service): EventIntake | undefined {
  const { nats, settings, metrics } = runtime;
  if (!nats) return undefined;
  const counters: IntakeCounters = { taken: 0, again: 0, malformed: 0 };
  const taker = new EventIntake({
    nats,
    settings,
    take: messages => takeMessages({ runtime, broker, nats }, counters, messages),
    warn: (error, what) => logger.warn({ err: error }, what),
  });
  metrics.counter(
    { name: "noetl_event_messages_total", help: "Messages of the stream of workers' events" },
    () => Object.entries(counters).map(([end, value]) => ({ labels: { end }, value })),
  );
  metrics.gauge(
    { name: "noetl_event_messages_held", help: "Messages taken from it and not settled yet" },
    () => taker.held,
  );
  return taker;
}

/** While rings reach nobody (NATS is away) all that wait are told, else the overlooked ones. */
async function waiting(
  { offers, doorbell, clock }: Runtime,
  { max, wait_ms, work_class: workClass, words }: CommandsWaiting,
): Promise<{ rings: Ring[] }> {
  const until = clock.now() + wait_ms;
  for (;;) {
    const rings = offers.take(max, doorbell.connected() ? SILENT_MS : 0, { workClass, words });
    const left = until - clock.now();
    if (rings.length > 0 || left <= 0) return { rings };
    await offers.next(Math.min(left, LOOK_MS));
  }
}

/** Only workers that have the store at hand can read what a grant names: here it is for others. */
async function valueOf(
  { values }: Runtime,
  { command_id, reference, index }: CommandsValue,
): Promise<{ value: Json }> {
  const execution_id = command_id.split(":")[0] ?? "";
  if (!reference.ref.startsWith(`${REFERENCE_PREFIX}${execution_id}/`)) {
    throw new Rejected("this is no value of the command's execution", 403, { command_id });
  }
  return {
    value: await (index === undefined ? values.load(reference) : values.item(reference, index)),
  };
}

async function get({ database }: Runtime, commandId: string) {
  const execution_id = commandId.split(":")[0] ?? "";
  const found = await findCommand(database, { execution_id, command_id: commandId });
  if (found) return found;
  throw new Rejected(`there is no command ${commandId}`, 404, { command_id: commandId });
}
