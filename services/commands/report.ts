// Events of workers at the server's door: checked, sorted by stream, and put before their owners.
// The key of an entry is its command and delivery: said twice, it is accepted once.
import type { ServiceBroker } from "moleculer";
import {
  failedReply,
  type OutcomeRequest,
  type ReleaseRequest,
  type Reply,
} from "../../mixins/actor-service.ts";
import { findOver } from "../../mixins/postgres/command.ts";
import { beat } from "../../mixins/postgres/runtime.ts";
import { jsonSize, MESSAGE_BYTES_MAX, splitBySize } from "../../mixins/json-size.ts";
import { byOwner, callOwner } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { BATCH_MAX, type WorkerEvent } from "../../schemas/command-requests.ts";
import { Busy, Rejected, Unavailable, errorType } from "../../schemas/errors.ts";
import { INLINE_RESULT_BYTES_MAX, type OutcomeResult } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { fits } from "../../schemas/json.ts";
import { placeOf, type Place } from "./claim.ts";

/** An owner waits this long for its database before it says that it cannot. */
const REPORT_MS = 90_000;

export type Answered = Reply<{ grant?: Grant; over?: string[] }>;
type OutcomeEvent = Extract<WorkerEvent, { event_type: "command.completed" | "command.failed" }>;

/** One reply an entry, in order; `refused` is final, `failed` may be sent again. */
export async function reportEvents(
  runtime: Runtime,
  broker: ServiceBroker,
  events: WorkerEvent[],
): Promise<{ results: Answered[] }> {
  const letters = await Promise.all(events.map(event => addressed(runtime, event)));
  const results = letters.map(letter => ("reply" in letter ? letter.reply : undefined));
  const open = letters.flatMap((letter, index) =>
    "reply" in letter ? [] : [{ ...letter, index }],
  );
  const sent = callsOf(broker, open).map(async group => {
    const replies = await send(broker, group);
    group.forEach(({ index }, at) => (results[index] = replies[at]));
  });
  await Promise.all(sent);
  return { results: results as Answered[] };
}

/** What is for one owner goes in one call, what is for one stream in the order it was said. */
function callsOf<One extends Open>(broker: ServiceBroker, letters: One[]): One[][] {
  const kinds = Map.groupBy(letters, ({ verb, place }) => `${verb}:${place.actor}`);
  return [...kinds.values()].flatMap(group => {
    const { actor } = (group[0] as One).place;
    const addressed = group.map(letter => ({ letter, stream_id: letter.place.stream_id }));
    return byOwner(broker, actor, addressed)
      .map(owned => owned.map(one => one.letter))
      .flatMap(owned =>
        splitBySize(owned, MESSAGE_BYTES_MAX, BATCH_MAX, one => jsonSize(one.entry)),
      );
  });
}

/** As `reportEvents`, for one; a refusal is an error of its own. */
export async function reportOne(
  runtime: Runtime,
  broker: ServiceBroker,
  event: WorkerEvent,
): Promise<Answered> {
  const [reply] = (await reportEvents(runtime, broker, [event])).results;
  if (!reply) throw new Unavailable("nobody answers");
  if (reply.status === "ok") return reply;
  if (reply.status === "failed") {
    const { error, retry_after_ms } = reply;
    throw retry_after_ms ? new Busy(error, { retry_after_ms }) : new Unavailable(error);
  }
  const { command_id, reason, message } = reply;
  throw new Rejected(message, 409, { reason, command_id });
}

/** An entry on its way to its owner, or what is already to be said about it. */
type Letter =
  | { reply: Answered }
  | { verb: "report"; place: Place; entry: OutcomeRequest }
  | { verb: "release"; place: Place; entry: ReleaseRequest };
type Open = Exclude<Letter, { reply: Answered }>;

async function addressed(runtime: Runtime, event: WorkerEvent): Promise<Letter> {
  const command_id = "command_id" in event ? event.command_id : "";
  try {
    if (event.event_type === "command.heartbeat") return { reply: await heard(runtime, event) };
    const place = await placeOf(runtime, event);
    if (event.event_type !== "command.released") {
      return { verb: "report", place, entry: await outcomeOf(runtime, place, event) };
    }
    const { delivery, worker_id } = event;
    const { execution_id, stream_id } = place;
    const entry = { execution_id, stream_id, command_id, delivery, worker_id };
    return { verb: "release", place, entry };
  } catch (error) {
    return { reply: replyTo(command_id, error) };
  }
}

function replyTo(command_id: string, error: unknown): Answered {
  if (errorType(error) !== "REJECTED") return failedReply(command_id, error);
  const message = error instanceof Error ? error.message : String(error);
  return { command_id, status: "refused", reason: "unknown", message };
}

async function send(broker: ServiceBroker, letters: Open[]): Promise<Answered[]> {
  const [first] = letters;
  if (!first) return [];
  const { verb, place } = first;
  const entries = letters.map(letter => letter.entry);
  const params = verb === "report" ? { outcomes: entries } : { releases: entries };
  const call = { service: place.actor, action: verb, params, timeoutMs: REPORT_MS };
  try {
    return await callOwner<Answered[], object>(broker, place.stream_id, call);
  } catch (error) {
    return entries.map(({ command_id }) => replyTo(command_id, error));
  }
}

/** A worker without a row of its own shows life here, and hears which of its work is over. */
async function heard(
  { database }: Runtime,
  event: Extract<WorkerEvent, { event_type: "command.heartbeat" }>,
): Promise<Answered> {
  const { worker_id, incarnation = worker_id, command_ids: held } = event;
  // No machine: nobody can look whether its process lives.
  const row = { worker_id, incarnation, machine: "", pid: 0, capacity: {} };
  await beat(database, row, "ready");
  return { command_id: "", status: "ok", ...(held && { over: await findOver(database, held) }) };
}

/** Control rows stay small: data that is not goes to the result store (design §4.9). */
async function outcomeOf(
  runtime: Runtime,
  { execution_id, stream_id }: Place,
  event: OutcomeEvent,
): Promise<OutcomeRequest> {
  const { event_type, stream_id: _told, result, ...rest } = event;
  const kept: OutcomeResult = result ?? {
    status: event_type === "command.completed" ? "ok" : "error",
  };
  const outcome = { ...rest, execution_id, stream_id };
  if (kept.context === undefined || fits(kept.context, INLINE_RESULT_BYTES_MAX)) {
    return { ...outcome, result: kept };
  }
  const { context, ...small } = kept;
  const name = `${execution_id}/result/${encodeURIComponent(event.command_id)}-${event.delivery}`;
  const reference = await runtime.results.put(name, context);
  return { ...outcome, result: { ...small, reference } };
}
