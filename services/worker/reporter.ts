// Outcomes on their way to their owners: kept until each is confirmed or finally refused, sent in
// batches.
import type { ServiceBroker } from "moleculer";
import type { OutcomeRequest, Reply } from "../../mixins/actor-service.ts";
import { backoffMs, type Clock } from "../../mixins/clock.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { jsonSize, MESSAGE_BYTES_MAX, splitBySize } from "../../mixins/json-size.ts";
import { byOwner } from "../../mixins/routing.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import { busyWaitMs } from "../../schemas/errors.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";

export interface Outcome extends OutcomeRequest {
  actor: ActorKind;
}

interface Entry {
  stream_id: string;
  outcome: Outcome;
  done: (settled: Settled) => void;
  /** How often it was sent and not settled: its own, however the others fare. */
  tries: number;
  /** The outcome could not be taken as it was, and stands for that now. */
  replaced?: boolean;
}

/** How an owner took an outcome, with the next command it hands over. */
export interface Settled {
  accepted: boolean;
  next?: Grant;
}

/** A result that no owner can take, told as the failure that it is. */
function unreportable(outcome: Outcome, message: string): Outcome {
  const { ctx: _ctx, frame, result: _result, ...ids } = outcome;
  const error = { kind: "unknown", retryable: false, code: "MALFORMED", message };
  if (!frame) return { ...ids, result: { status: "error", error } };
  const items = [frame.ok, frame.failed].flatMap(set => fromRanges(set, 0, Infinity) ?? []);
  const failed = toRanges(items.sort((one, other) => one - other));
  return { ...ids, frame: { ...frame, ok: "", failed }, result: { status: "ok", error } };
}

/** Outcomes of one call at most. */
const BATCH_MAX = 500;
const FAILURES_A_LINE = 20;

export interface ReporterCounters {
  reported: number;
  /** Final refusals: a zombie's outcome, or one that is already settled. */
  refused: number;
}

/**
 * Sends outcomes until they are settled. `settled` resolves for each; nothing here is ever dropped
 * silently.
 */
export class Reporter {
  readonly counters: ReporterCounters = { reported: 0, refused: 0 };
  readonly #broker: ServiceBroker;
  readonly #clock: Clock;
  readonly #link: ServerLink;
  readonly #waiting = new Map<ActorKind, Entry[]>();
  readonly #sending = new Set<ActorKind>();
  /** Calls in a row that failed, of all batches: one line of log for so many. */
  #failures = 0;

  constructor(broker: ServiceBroker, clock: Clock, link: ServerLink) {
    this.#broker = broker;
    this.#clock = clock;
    this.#link = link;
  }

  /** Resolves when the owner has accepted or finally refused it. */
  report(outcome: Outcome): Promise<Settled> {
    return new Promise(done => {
      const queue = this.#waiting.get(outcome.actor) ?? [];
      queue.push({ stream_id: outcome.stream_id, outcome, done, tries: 0 });
      this.#waiting.set(outcome.actor, queue);
      if (!this.#sending.has(outcome.actor)) void this.#send(outcome.actor);
    });
  }

  async #send(actor: ActorKind): Promise<void> {
    this.#sending.add(actor);
    await Promise.resolve();
    for (;;) {
      const batch = this.#waiting.get(actor)?.splice(0, BATCH_MAX) ?? [];
      if (batch.length === 0) break;
      // Each batch is on its way by itself: a slow stream must not hold up the others' outcomes.
      for (const group of byOwner(this.#broker, actor, batch)) {
        // An answer of NATS has a limit, and so has a question.
        const parts = splitBySize(group, MESSAGE_BYTES_MAX, BATCH_MAX, one =>
          jsonSize(one.outcome),
        );
        for (const part of parts) void this.#deliver(actor, part);
      }
      await new Promise(resolve => setImmediate(resolve));
    }
    this.#sending.delete(actor);
  }

  async #deliver(actor: ActorKind, batch: Entry[]): Promise<void> {
    const outcomes = batch.map(({ outcome: { actor: _actor, ...request } }) => request);
    let replies: Reply<{ grant?: Grant }>[] = [];
    let pauseMs = 0;
    try {
      replies = await this.#link.report(actor, outcomes);
      this.#failures = 0;
    } catch (error) {
      pauseMs = busyWaitMs(error);
      this.#failures += 1;
      if (this.#failures % FAILURES_A_LINE === 1)
        this.#broker.logger.warn({ err: error, actor }, "worker.report_later");
    }
    const again = batch.filter((entry, index) => !this.#settle(entry, replies[index]));
    if (again.length === 0) return;
    for (const entry of again) entry.tries += 1;
    const tries = Math.max(...again.map(entry => entry.tries));
    const said = replies.map(reply => (reply?.status === "failed" ? reply.retry_after_ms : 0) ?? 0);
    await this.#clock.sleep(Math.max(pauseMs, ...said, backoffMs(tries, 100, 5_000)));
    this.#waiting.set(actor, [...(this.#waiting.get(actor) ?? []), ...again]);
    if (!this.#sending.has(actor)) void this.#send(actor);
  }

  #settle(entry: Entry, reply: Reply<{ grant?: Grant }> | undefined): boolean {
    if (reply === undefined || reply.status === "failed") return false;
    if (reply.status === "refused") {
      this.counters.refused += 1;
      const { command_id, delivery } = entry.outcome;
      // Settled is the usual end of cancelled work; a fenced-out outcome is a zombie's.
      const level = reply.reason === "settled" ? "debug" : "warn";
      const { reason } = reply;
      this.#broker.logger[level]({ command_id, delivery, reason }, "worker.outcome_refused");
      if (reason === "malformed" && !entry.replaced) {
        // The command would be done again, and refused again: it has failed, and why is known.
        entry.outcome = unreportable(entry.outcome, reply.message);
        entry.replaced = true;
        return false;
      }
      entry.done({ accepted: false });
    } else {
      this.counters.reported += 1;
      entry.done({ accepted: true, ...(reply.grant && { next: reply.grant }) });
    }
    return true;
  }
}
