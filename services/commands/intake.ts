// Messages of workers out of their stream: through the same door as what comes over HTTP. One is
// acknowledged when all that it says is committed or finally refused, and its sender is told.
import type { ServiceBroker } from "moleculer";
import { fitting } from "../../mixins/actor-service.ts";
import { ANSWER_TO, type EventMessage } from "../../mixins/event-stream.ts";
import type { NatsPort } from "../../mixins/jetstream.ts";
import type { Pulled } from "../../mixins/jetstream-pull.ts";
import { REFERENCE_PREFIX } from "../../mixins/result-store/index.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { readEntry } from "../../schemas/actor-requests.ts";
import { BATCH_MAX, workerEvent, type WorkerEvent } from "../../schemas/command-requests.ts";
import { errorType } from "../../schemas/errors.ts";
import { isObject } from "../../schemas/json.ts";
import { reportEvents, type Answered } from "./report.ts";

/** A message that nobody could settle comes again after this, to any server. */
const AGAIN_MS = 2_000;

export interface IntakeCounters {
  /** Messages that were settled. */
  taken: number;
  /** Given back: an owner or the store was away, or full. */
  again: number;
  /** No messages of workers: acknowledged and dropped. */
  malformed: number;
}

interface Opened {
  message: Pulled;
  /** What is wrong with an entry is said about that entry alone. */
  entries: ({ event: WorkerEvent } | { reply: Answered })[];
}

/** Settles messages side by side: what they say reaches each owner in one call. */
export async function takeMessages(
  { runtime, broker, nats }: { runtime: Runtime; broker: ServiceBroker; nats: NatsPort },
  counters: IntakeCounters,
  messages: Pulled[],
): Promise<void> {
  const opened = (await Promise.all(messages.map(open))).filter(one => one !== undefined);
  const events = opened.flatMap(({ entries }) =>
    entries.flatMap(entry => ("event" in entry ? [entry.event] : [])),
  );
  const results = events.length > 0 ? await reported(events) : [];
  let next = 0;
  for (const { message, entries } of opened) {
    const replies = entries.map(entry => {
      if ("reply" in entry) return entry.reply;
      next += 1;
      return results[next - 1] as Answered;
    });
    settle(message, replies);
  }

  async function open(message: Pulled): Promise<Opened | undefined> {
    try {
      const raw = await eventsOf(runtime, message);
      return { message, entries: raw.map(entryOf) };
    } catch (error) {
      if (errorType(error) === "UNAVAILABLE") giveBack(message);
      else {
        counters.malformed += 1;
        message.ack();
      }
      return undefined;
    }
  }

  async function reported(all: WorkerEvent[]): Promise<Answered[]> {
    try {
      return (await reportEvents(runtime, broker, all)).results;
    } catch (error) {
      return all.map(() => ({ command_id: "", status: "failed", error: String(error) }));
    }
  }

  /** The sender hears at once; the stream only of what needs not come again. */
  function settle(message: Pulled, replies: Answered[]): void {
    const to = message.headers?.get(ANSWER_TO);
    const answer = JSON.stringify({ results: fitting(replies) });
    if (to) nats.line()?.connection.publish(to, answer);
    const failed = replies.filter(reply => reply.status === "failed");
    const after = failed.map(reply => reply.retry_after_ms ?? AGAIN_MS);
    if (after.length > 0) return giveBack(message, Math.max(...after));
    counters.taken += 1;
    message.ack();
  }

  function giveBack(message: Pulled, afterMs = AGAIN_MS): void {
    counters.again += 1;
    message.nak(afterMs);
  }
}

/** Throws for what is no message of a worker, Unavailable while what it names cannot be read. */
async function eventsOf({ results }: Runtime, { data, subject }: Pulled): Promise<unknown[]> {
  const message = JSON.parse(Buffer.from(data).toString("utf8")) as EventMessage;
  const execution_id = subject.slice(subject.lastIndexOf(".") + 1);
  let events: unknown = "events" in message ? message.events : undefined;
  if ("reference" in message) {
    const { reference } = message;
    if (!reference.ref.startsWith(`${REFERENCE_PREFIX}${execution_id}/`)) {
      throw new Error("what it names is not the execution's");
    }
    events = await results.get(reference);
  }
  if (!Array.isArray(events) || events.length === 0 || events.length > BATCH_MAX) {
    throw new Error("no list of events");
  }
  return events;
}

function entryOf(raw: unknown, index: number): Opened["entries"][number] {
  try {
    return { event: readEntry(workerEvent, raw, index) };
  } catch (error) {
    const asked = isObject(raw) ? raw["command_id"] : undefined;
    const command_id = typeof asked === "string" ? asked : "";
    const message = error instanceof Error ? error.message : String(error);
    return { reply: { command_id, status: "refused", reason: "malformed", message } };
  }
}
