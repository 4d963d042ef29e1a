// One stream's mailbox: takes all inputs that have arrived, decides, appends, lets effects out.
import { Conflict, errorType } from "../schemas/errors.ts";
import type { Machine, TurnContext } from "../schemas/decider.ts";
import type { ActorPorts } from "./actor.ts";
import { Assignments } from "./assignments.ts";
import { backoffMs } from "./clock.ts";
import { answer, decide, type Decision, type Entry, type Turn } from "./deciding.ts";
import type { StreamName } from "./event-store.ts";
import { Inbox, isWake } from "./inbox.ts";
import { readLiveness } from "./liveness.ts";
import { Outbox } from "./outbox.ts";
import { isForeign, Poison, TurnFailure } from "./poison.ts";
import type { StartRow } from "./postgres/event.ts";
import { Replica } from "./replica.ts";
import { wakeAfterWake, wakeOfAppend } from "./wake-times.ts";

/** Events of one append at most; further inputs wait for the next turn. */
const TURN_EVENTS_MAX = 2_000;
/**
 * Conflicts in a row before a turn sends its inputs to the rival that wins, or waits a little where
 * they must stay.
 */
const CONFLICTS_MAX = 2;
/** How long inputs wait for an unreachable database, or for rivals to let them through. */
const PATIENCE_MS = 60_000;
/** What a turn may find out about itself: committed, or to be done again on a fresher state. */
type Verdict = "done" | "again";

export class Mailbox<State, Input extends { type: string }, Answer> {
  readonly #machine: Machine<State, Input, Answer>;
  readonly #ports: ActorPorts<State, Input, Answer>;
  readonly #name: StreamName;
  readonly #replica: Replica<State>;
  readonly #outbox: Outbox<State>;
  readonly #assignments: Assignments;
  readonly #poison: Poison;
  readonly #watchers = new Set<(state: State) => void>();
  readonly #inbox: Inbox<Input, Answer>;
  #running = false;
  #refusedBefore = false;
  #doubted = false;
  #over = false;
  usedAt = 0;

  constructor(
    machine: Machine<State, Input, Answer>,
    ports: ActorPorts<State, Input, Answer>,
    name: StreamName,
  ) {
    this.#machine = machine;
    this.#ports = ports;
    this.#name = name;
    this.#inbox = new Inbox(name.stream_id);
    this.#replica = new Replica(machine, ports, name);
    this.#poison = new Poison(ports, name);
    this.#assignments = new Assignments(ports, name, input => this.push(input as Input));
    this.#outbox = new Outbox(machine, ports, name, {
      assign: assignment => this.#assignments.tell(assignment),
      acknowledged: () => void this.#acknowledged(),
    });
  }

  get busy(): boolean {
    return this.#running || this.#inbox.size > 0;
  }

  get idle(): boolean {
    return !this.busy && this.#watchers.size === 0;
  }

  /** What was seen last; undefined when nothing is in memory. */
  get state(): State | undefined {
    return this.#replica.state;
  }

  /** Hands an input to the stream. Rejected, Busy or Unavailable come back as errors. */
  push(input: Input, start?: StartRow, forwarded?: boolean): Promise<Answer> {
    const answered = this.#inbox.add(input, start, forwarded);
    if (!this.#running) void this.#run();
    return answered;
  }

  /** Calls `changed` with the state after every turn until the returned function is called. */
  watch(changed: (state: State) => void): () => void {
    this.#watchers.add(changed);
    return () => {
      this.#watchers.delete(changed);
      if (this.idle) this.#rest();
    };
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Inputs that arrive in the same turn of the event loop are decided together.
    await Promise.resolve();
    while (this.#inbox.size > 0) {
      const entries = this.#inbox.take();
      try {
        await this.#turn(entries);
      } catch (error) {
        await this.#fail(entries, error);
      }
    }
    this.usedAt = this.#ports.clock.now();
    this.#running = false;
    this.#rest();
  }

  /** Of a stream that has ended, or that there is not, nothing is kept. */
  #rest(): void {
    this.#ports.rested(this, this.#over || this.#replica.version === 0);
  }

  async #turn(entries: Entry<Input, Answer>[]): Promise<void> {
    const { clock } = this.#ports;
    const patientUntil = clock.now() + PATIENCE_MS;
    let left = entries;
    for (let conflicts = 0, outages = 0; left.length > 0;) {
      try {
        await this.#load(left);
        const attempt = await this.#attempt(left).finally(() => this.#assignments.settle(false));
        left = attempt.left;
        if (attempt.verdict === "done") continue;
        conflicts += 1;
        if (clock.now() > patientUntil) throw new Conflict("rivals keep appending first");
        if (conflicts > CONFLICTS_MAX) {
          left = await this.#sendOn(left);
          if (left.length > 0) await clock.sleep(backoffMs(conflicts, 1, 200));
        }
        await this.#replica.catchUp();
      } catch (error) {
        if (errorType(error) !== "UNAVAILABLE") throw error;
        // The statement may have been committed: only the log can say. All is decided again on it.
        this.#forget();
        this.#ports.outage();
        outages += 1;
        const hopeless = isForeign(error) || this.#ports.stopping();
        if (hopeless || clock.now() > patientUntil) throw error;
        await clock.sleep(backoffMs(outages, 50, 2_000));
      }
    }
  }

  /** To whoever keeps appending first; gives what has to be decided here. */
  async #sendOn(entries: Entry<Input, Answer>[]): Promise<Entry<Input, Answer>[]> {
    const { store, owner, forward } = this.#ports;
    const rival = (await store.readHead(this.#name.stream_id))?.owner;
    return forward && rival && rival !== owner ? forward(rival, this.#name, entries) : entries;
  }

  async #attempt(
    entries: Entry<Input, Answer>[],
  ): Promise<{ verdict: Verdict; left: Entry<Input, Answer>[] }> {
    const context = await this.#context(entries);
    let draft = this.#machine.fork(this.#replica.state as State);
    let count = 0;
    const decisions: Decision<Input, Answer>[] = [];
    for (const entry of entries) {
      if (count >= TURN_EVENTS_MAX) break;
      const decision = await decide(this.#turnOf(context), entry, draft);
      decision.events = this.#assignments.issue(decision.events);
      for (const event of decision.events) {
        count += 1;
        draft = this.#machine.evolve(draft, event, context.now, this.#replica.version + count);
      }
      decisions.push(decision);
    }
    const verdict =
      count > 0 ? await this.#commit(decisions, draft, context) : await this.#prove(decisions);
    if (verdict === "again") return { verdict, left: entries };
    for (const decision of decisions) this.#settle(decision, context);
    this.#afterTurn(entries, context);
    return { verdict, left: entries.slice(decisions.length) };
  }

  #turnOf(context: TurnContext): Turn<State, Input, Answer> {
    return { machine: this.#machine, values: this.#ports.values, name: this.#name, context };
  }

  async #context(entries: Entry<Input, Answer>[]): Promise<TurnContext> {
    const { clock, settings, values, ids, streamIds = ids } = this.#ports;
    const held = entries.some(isWake) ? [...this.#machine.held(this.#replica.state as State)] : [];
    const { seen, disowned } = await readLiveness(this.#ports, held);
    const { loaded, stored } = values;
    const newId = () => streamIds.next();
    return { now: clock.now(), newId, settings, seen, disowned, loaded, stored };
  }

  async #commit(
    decisions: Decision<Input, Answer>[],
    draft: State,
    context: TurnContext,
  ): Promise<Verdict> {
    const { store, ids, kind, owner, counters } = this.#ports;
    const expected = this.#replica.version;
    const events = decisions
      .flatMap(decision => decision.events)
      .map(event => ({ ...event, event_id: ids.next() }));
    const owes = this.#outbox.owes(draft);
    const ended = this.#machine.isOver(draft) && !owes;
    const outcome = await store.append({
      ...this.#name,
      kind,
      expected,
      events,
      wake_at: ended ? undefined : wakeOfAppend(this.#machine, draft, context, owes),
      ended,
      owner,
      start: decisions.find(decision => decision.entry.start)?.entry.start,
    });
    if (outcome.status === "conflict") {
      counters.conflicts += 1;
      if (expected === 0 && !(await store.readHead(this.#name.stream_id))) {
        throw new Conflict("a rival holds the key of this start");
      }
      return "again";
    }
    if (outcome.status === "refused") return this.#refused(outcome.error);
    this.#assignments.settle(true);
    this.#poison.forget();
    this.#refusedBefore = false;
    this.#over = ended;
    this.#replica.advance(draft, events.length).catch(this.#warn);
    this.#ports.committed(
      events.map((event, index) => {
        const version = expected + index + 1;
        return { ...event, ...this.#name, version, at: outcome.at };
      }),
      draft,
    );
    return "done";
  }

  /**
   * A refusal, or a read, is given only when the cached version is the head's (design §5 rule 2). A
   * wake is a read too: what a rival that died has left is to be found in the log only.
   */
  async #prove(decisions: Decision<Input, Answer>[]): Promise<Verdict> {
    const proofNeeded = decisions.some(
      ({ entry, refusal }) => refusal || isWake(entry) || this.#ports.mustProve?.(entry.input),
    );
    if (!proofNeeded) return "done";
    const head = await this.#ports.store.readHead(this.#name.stream_id);
    return (head?.version ?? 0) === this.#replica.version ? "done" : "again";
  }

  /** A guard refused our rows: once more on a state read afresh, then the stream is parked. */
  #refused(error: Error): Verdict {
    if (this.#refusedBefore) throw new TurnFailure(error, { final: true });
    this.#refusedBefore = true;
    this.#forget();
    return "again";
  }

  #settle({ entry, events, refusal }: Decision<Input, Answer>, context: TurnContext): void {
    if (refusal !== undefined) {
      this.#ports.counters.refusals += 1;
      return entry.reject(refusal);
    }
    const state = this.#replica.state as State;
    answer(this.#turnOf(context), entry, state, events.length > 0);
  }

  #afterTurn(entries: Entry<Input, Answer>[], context: TurnContext): void {
    const state = this.#replica.state as State;
    const woken = entries.some(isWake);
    this.#outbox.send(state, context.now, woken);
    if (woken) void this.#rearm(context).catch(this.#warn);
    for (const changed of this.#watchers) changed(state);
  }

  async #acknowledged(): Promise<void> {
    const { state } = this.#replica;
    if (state === undefined || !this.#machine.isOver(state) || this.#outbox.owes(state)) return;
    await this.#end().catch(this.#warn);
    if (this.#over && !this.#running) this.#rest();
  }

  async #end(): Promise<void> {
    this.#over = await this.#ports.store.end(this.#name.stream_id, this.#replica.version);
  }

  /** On wake: the next deadline, which may be later than the last one (design §5 rule 6). */
  async #rearm(context: TurnContext): Promise<void> {
    const state = this.#replica.state as State;
    const owes = this.#outbox.owes(state);
    if (this.#machine.isOver(state) && !owes) return this.#end();
    const wakeAt = wakeAfterWake(this.#machine, state, context, owes);
    await this.#ports.store.setWake(this.#name.stream_id, this.#replica.version, wakeAt);
  }

  async #load(entries: Entry<Input, Answer>[]): Promise<void> {
    if (this.#replica.state !== undefined) return;
    if (entries[0]?.input.type === "start" && !this.#refusedBefore && !this.#doubted) {
      // It is new, but for a repeated message, and then the append conflicts.
      return this.#replica.assumeNew();
    }
    await this.#replica.load();
    // Effects run after every load too: what was pending when the last owner died goes out again.
    this.#outbox.send(this.#replica.state as State, this.#ports.clock.now(), false);
  }

  #forget(): void {
    this.#replica.forget();
    this.#outbox.forget();
    this.#doubted = true;
  }

  async #fail(entries: Entry<Input, Answer>[], error: unknown): Promise<void> {
    this.#forget();
    const { guilty, answer: told } = await this.#poison.note(error);
    for (const entry of entries) {
      // Only the input that met the bug fails; its neighbours are decided again without it.
      if (guilty && entry !== guilty) this.#inbox.putBack(entry);
      else entry.reject(told);
    }
  }

  readonly #warn = (error: unknown): void => this.#ports.warn(error, this.#name);
}
