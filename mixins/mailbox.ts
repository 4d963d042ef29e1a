// One stream's mailbox: takes all inputs that have arrived, decides, appends, and then lets effects out.
import { Busy, Conflict, Rejected, Unavailable, errorType } from "../schemas/errors.ts";
import { Needs, type Effect, type HeldCommand, type Machine, type TurnContext } from "../schemas/decider.ts";
import type { NewEvent, StoredEvent } from "../schemas/events.ts";
import { backoffMs } from "./clock.ts";
import type { StreamName } from "./event-store.ts";
import type { ActorPorts } from "./actor.ts";
import type { StartRow } from "./postgres/event.ts";

/** More inputs than this waiting on one stream, and the sender hears Busy (design §5). */
const INPUTS_MAX = 1_000;
/** Events of one append at most; further inputs wait for the next turn. */
const TURN_EVENTS_MAX = 2_000;
/** Conflicts in a row before the caller is told to come back. */
const CONFLICTS_MAX = 8;
/** Turns that may fail before the stream is parked (design §5 rule 7). */
const FAILURES_MAX = 3;
/** How long inputs wait for an unreachable database. */
const OUTAGE_MS = 60_000;
/** The longest a stream sleeps when its machine names no deadline. */
const SLEEP_MAX_MS = 600_000;
const READ_PAGE = 5_000;
/** A snapshot at most every so many events (design §6). */
const SNAPSHOT_EVENTS = 2_000;

interface Entry<Input, Answer> {
  input: Input;
  start?: StartRow;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

interface Decision<Input, Answer> {
  entry: Entry<Input, Answer>;
  events: NewEvent[];
  refusal?: Rejected;
}

/** What a stream's turn may find out about itself: committed, or to be done again on a fresher state. */
type Verdict = "done" | "again";

export class Mailbox<State, Input extends { type: string }, Answer> {
  readonly #machine: Machine<State, Input, Answer>;
  readonly #ports: ActorPorts<State, Input, Answer>;
  readonly #name: StreamName;
  #queue: Entry<Input, Answer>[] = [];
  #running = false;
  #state: State | undefined;
  #version = 0;
  #snapshotVersion = 0;
  #storedWake = Infinity;
  #failures = 0;
  #refusedBefore = false;
  #doubted = false;
  #over = false;
  #sent = new Map<string, number>();
  #acked = new Set<string>();
  #watchers = new Set<(state: State) => void>();
  usedAt = 0;

  constructor(
    machine: Machine<State, Input, Answer>,
    ports: ActorPorts<State, Input, Answer>,
    name: StreamName,
  ) {
    this.#machine = machine;
    this.#ports = ports;
    this.#name = name;
  }

  get idle(): boolean {
    return !this.#running && this.#queue.length === 0 && this.#watchers.size === 0;
  }

  /** Hands an input to the stream. Rejected, Busy or Unavailable come back as errors. */
  push(input: Input, start?: StartRow): Promise<Answer> {
    if (this.#queue.length >= INPUTS_MAX) {
      throw new Busy(`stream ${this.#name.stream_id} has ${INPUTS_MAX} inputs waiting`, {
        retry_after_ms: 100,
      });
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ input, start, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  /** Calls `changed` with the state after every turn until the returned function is called. */
  watch(changed: (state: State) => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Inputs that arrive in the same turn of the event loop are decided together.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const entries = this.#queue.splice(0);
      try {
        await this.#turn(entries);
      } catch (error) {
        await this.#fail(entries, error);
      }
    }
    this.usedAt = this.#ports.clock.now();
    this.#running = false;
    this.#ports.rested(this, this.#over);
  }

  async #turn(entries: Entry<Input, Answer>[]): Promise<void> {
    const started = this.#ports.clock.now();
    let left = entries;
    for (let conflicts = 0, outages = 0; left.length > 0; ) {
      try {
        await this.#load(left);
        const verdict = await this.#attempt(left);
        if (verdict.outcome === "done") left = verdict.left;
        else if ((conflicts += 1) > CONFLICTS_MAX) throw new Conflict("rivals keep appending first");
        else await this.#catchUp();
      } catch (error) {
        // The statement may have been committed: only the log can say. Everything is decided again on it.
        if (errorType(error) !== "UNAVAILABLE") throw error;
        this.#forget();
        outages += 1;
        if (this.#ports.clock.now() - started > OUTAGE_MS || this.#ports.stopping()) throw error;
        await this.#ports.clock.sleep(backoffMs(outages, 50, 2_000));
      }
    }
  }

  async #attempt(
    entries: Entry<Input, Answer>[],
  ): Promise<{ outcome: Verdict; left: Entry<Input, Answer>[] }> {
    const context = await this.#context(entries);
    const committed = this.#state as State;
    let draft = this.#machine.fork(committed);
    let count = 0;
    const decisions: Decision<Input, Answer>[] = [];
    for (const entry of entries) {
      if (count >= TURN_EVENTS_MAX) break;
      const decision = await this.#decide(entry, draft, context);
      for (const event of decision.events) {
        count += 1;
        draft = this.#machine.evolve(draft, event, context.now, this.#version + count);
      }
      decisions.push(decision);
    }
    const verdict =
      count > 0 ? await this.#commit(decisions, draft, context) : await this.#prove(decisions);
    if (verdict === "done") {
      for (const decision of decisions) this.#settle(decision, context);
      this.#afterTurn(entries, context);
    }
    return { outcome: verdict, left: verdict === "done" ? entries.slice(decisions.length) : entries };
  }

  /** Decides one input, fetching what it needs. A bug rejects that input alone and is counted. */
  async #decide(
    entry: Entry<Input, Answer>,
    draft: State,
    context: TurnContext,
  ): Promise<Decision<Input, Answer>> {
    for (;;) {
      try {
        return { entry, events: this.#machine.decide(entry.input, draft, context) };
      } catch (error) {
        if (error instanceof Needs) await this.#ports.values.provide(error, this.#name, context);
        else if (error instanceof Rejected) return { entry, events: [], refusal: error };
        else throw new TurnFailure(error, entry);
      }
    }
  }

  async #context(entries: Entry<Input, Answer>[]): Promise<TurnContext> {
    const { clock, settings, values, ids } = this.#ports;
    const wakes = entries.some(entry => entry.input.type === "wake");
    const held = wakes ? [...this.#machine.held(this.#state as State)] : [];
    const { seen, disowned } = await this.#liveness(held);
    const { loaded, stored } = values;
    const newId = () => ids.next();
    return { now: clock.now(), newId, settings, seen, disowned, loaded, stored };
  }

  /** Rows of the holders, and what the living ones of lapsed leases say that they do not hold. */
  async #liveness(held: HeldCommand[]) {
    const disowned = new Set<string>();
    if (held.length === 0) return { seen: new Map<string, number>(), disowned };
    const { store, clock, settings, holds } = this.#ports;
    const seen = await store.readSeen([...new Set(held.map(one => one.incarnation))]);
    const lapsed = held.filter(one => one.claimed_at + settings.lease_ms < clock.now());
    for (const [incarnation, commands] of Map.groupBy(lapsed, one => one.incarnation)) {
      if (!seen.has(incarnation)) continue;
      const ids = commands.map(one => one.command_id);
      const kept = await holds(commands[0]?.worker_id ?? "", incarnation, ids);
      if (kept) for (const id of ids) if (!kept.includes(id)) disowned.add(id);
    }
    return { seen, disowned };
  }

  async #commit(
    decisions: Decision<Input, Answer>[],
    draft: State,
    context: TurnContext,
  ): Promise<Verdict> {
    const events = decisions
      .flatMap(decision => decision.events)
      .map(event => ({ ...event, event_id: this.#ports.ids.next() }));
    const ended = this.#machine.isOver(draft) && isEmpty(this.#machine.pending(draft));
    const wakeAt = ended ? undefined : this.#earlierWake(draft, context);
    const outcome = await this.#ports.store.append({
      ...this.#name,
      kind: this.#ports.kind,
      expected: this.#version,
      events,
      wake_at: wakeAt,
      ended,
      owner: this.#ports.owner,
      start: decisions.find(decision => decision.entry.start)?.entry.start,
    });
    if (outcome.status === "conflict") {
      this.#ports.counters.conflicts += 1;
      if (this.#version === 0 && !(await this.#ports.store.readHead(this.#name.stream_id))) {
        throw new Conflict("a rival holds the key of this start");
      }
      return "again";
    }
    if (outcome.status === "refused") return this.#refused(outcome.error);
    this.#failures = 0;
    this.#refusedBefore = false;
    if (wakeAt !== undefined) this.#storedWake = wakeAt;
    this.#state = draft;
    this.#over = ended;
    const first = this.#version + 1;
    this.#version += events.length;
    this.#ports.committed(
      events.map(
        (event, index) =>
          ({ ...event, ...this.#name, version: first + index, at: outcome.at }) as StoredEvent,
      ),
    );
    this.#keepSnapshot();
    return "done";
  }

  /** A refusal, or a read, is given only when the cached version is the head's (design §5 rule 2). */
  async #prove(decisions: Decision<Input, Answer>[]): Promise<Verdict> {
    const proofNeeded = decisions.some(
      one => one.refusal || this.#ports.mustProve?.(one.entry.input) === true,
    );
    if (!proofNeeded || this.#ports.sabotage?.has("refuse_without_proof")) return "done";
    const head = await this.#ports.store.readHead(this.#name.stream_id);
    return (head?.version ?? 0) === this.#version ? "done" : "again";
  }

  /** A guard refused our rows: once more on a state read afresh, then the stream is parked and named. */
  #refused(error: Error): Verdict {
    if (this.#refusedBefore) throw new TurnFailure(error, undefined, FAILURES_MAX);
    this.#refusedBefore = true;
    this.#forget();
    return "again";
  }

  #settle(decision: Decision<Input, Answer>, context: TurnContext): void {
    const { entry, events, refusal } = decision;
    if (refusal) {
      this.#ports.counters.refusals += 1;
      return entry.reject(refusal);
    }
    try {
      const state = this.#state as State;
      entry.resolve(this.#machine.answer(entry.input, state, context, events.length > 0));
    } catch (error) {
      entry.reject(error);
    }
  }

  #afterTurn(entries: Entry<Input, Answer>[], context: TurnContext): void {
    const woken = entries.some(entry => entry.input.type === "wake");
    this.#sendEffects(woken, context.now);
    if (woken) void this.#rearm(context).catch((error: unknown) => this.#ports.warn(error, this.#name));
    for (const changed of this.#watchers) changed(this.#state as State);
  }

  /** Effects are a function of state: whatever is pending and was not sent lately goes out (rule 3). */
  #sendEffects(woken: boolean, now: number): void {
    if (this.#ports.sabotage?.has("no_effects_after_commit") && !woken) return;
    const sent = new Map<string, number>();
    for (const effect of this.#machine.pending(this.#state as State)) {
      const before = this.#sent.get(effect.key);
      const due = before === undefined || (woken && now - before >= this.#ports.settings.rering_ms - 500);
      sent.set(effect.key, due ? now : before);
      if (due && !this.#acked.has(effect.key)) this.#send(effect);
    }
    this.#sent = sent;
    for (const key of this.#acked) if (!sent.has(key)) this.#acked.delete(key);
  }

  #send(effect: Effect): void {
    if (effect.kind === "ring") return this.#ports.ring(effect.ring);
    this.#ports.deliver(effect.to, effect.input).then(
      () => this.#acknowledged(effect.key),
      (error: unknown) => this.#ports.warn(error, this.#name),
    );
  }

  async #acknowledged(key: string): Promise<void> {
    this.#acked.add(key);
    const state = this.#state;
    if (state === undefined || !this.#machine.isOver(state)) return;
    for (const effect of this.#machine.pending(state)) if (!this.#acked.has(effect.key)) return;
    try {
      this.#over = await this.#ports.store.end(this.#name.stream_id, this.#version);
      if (this.#over && !this.#running) this.#ports.rested(this, true);
    } catch (error) {
      this.#ports.warn(error, this.#name);
    }
  }

  /** wake_at is a lower bound: an append only moves it earlier, and only by more than a second (rule 6). */
  #earlierWake(draft: State, context: TurnContext): number | undefined {
    const { rering_ms, lease_ms } = this.#ports.settings;
    const due = context.now + (isEmpty(this.#machine.pending(draft)) ? lease_ms : rering_ms);
    const wakeAt = roundUp(due);
    return this.#storedWake > wakeAt + 1_000 ? wakeAt : undefined;
  }

  async #rearm(context: TurnContext): Promise<void> {
    const state = this.#state as State;
    if (this.#machine.isOver(state) && isEmpty(this.#machine.pending(state))) {
      this.#over = await this.#ports.store.end(this.#name.stream_id, this.#version);
      return;
    }
    let due = this.#machine.deadline(state, context) ?? Infinity;
    for (const effect of this.#machine.pending(state)) {
      if (!this.#acked.has(effect.key)) due = Math.min(due, context.now + this.#ports.settings.rering_ms);
    }
    const wakeAt = roundUp(Math.max(context.now + 1_000, Math.min(due, context.now + SLEEP_MAX_MS)));
    this.#storedWake = wakeAt;
    await this.#ports.store.setWake(this.#name.stream_id, this.#version, wakeAt);
  }

  async #load(entries: Entry<Input, Answer>[]): Promise<void> {
    if (this.#state !== undefined) return;
    if (entries[0]?.input.type === "start" && !this.#refusedBefore && !this.#doubted) {
      // A stream that is being started is new but for a repeated message, and then the append conflicts.
      this.#state = this.#machine.initial();
      this.#version = 0;
      return;
    }
    const snapshot = await this.#ports.store.readSnapshot(this.#name.stream_id);
    this.#state = snapshot ? this.#machine.thaw(snapshot.state) : this.#machine.initial();
    this.#version = snapshot?.version ?? 0;
    this.#snapshotVersion = this.#version;
    this.#storedWake = Infinity;
    await this.#catchUp();
    // Effects run after every load too: what was pending when the last owner died goes out again.
    this.#sendEffects(false, this.#ports.clock.now());
  }

  /** Folds what others appended since. The state stays as it was if the reading fails half-way. */
  async #catchUp(): Promise<void> {
    if (this.#state === undefined) return;
    let state = this.#machine.fork(this.#state);
    let version = this.#version;
    for (;;) {
      const events = await this.#ports.store.readEvents(this.#name, version, READ_PAGE);
      for (const event of events) state = this.#machine.evolve(state, event, event.at, event.version);
      version = events.at(-1)?.version ?? version;
      if (events.length < READ_PAGE) break;
    }
    if (version === this.#version) return;
    this.#state = state;
    this.#version = version;
  }

  #keepSnapshot(): void {
    const due = Math.max(SNAPSHOT_EVENTS, this.#version / 32);
    if (this.#version - this.#snapshotVersion < due) return;
    this.#snapshotVersion = this.#version;
    const frozen = this.#machine.freeze(this.#state as State);
    this.#ports.store
      .writeSnapshot(this.#name.stream_id, this.#version, frozen)
      .catch((error: unknown) => this.#ports.warn(error, this.#name));
  }

  #forget(): void {
    this.#state = undefined;
    this.#doubted = true;
    this.#sent = new Map();
    this.#acked = new Set();
  }

  async #fail(entries: Entry<Input, Answer>[], error: unknown): Promise<void> {
    const failure = error instanceof TurnFailure ? error : undefined;
    const cause = failure?.cause ?? error;
    const guilty = failure?.entry;
    if (errorType(cause) === "") {
      this.#failures += failure?.weight ?? 1;
      this.#ports.failed(cause, this.#name, this.#failures);
      if (this.#failures >= FAILURES_MAX) await this.#park(cause);
    }
    this.#forget();
    for (const entry of entries) {
      // Only the input that met the bug fails; its neighbours are decided again without it.
      if (guilty && entry !== guilty) this.#queue.push(entry);
      else entry.reject(errorType(cause) === "" ? this.#broken(cause) : cause);
    }
  }

  #broken(cause: unknown): Unavailable {
    const text = cause instanceof Error ? cause.message : String(cause);
    return new Unavailable(`stream ${this.#name.stream_id} cannot take this: ${text}`, {
      stream_id: this.#name.stream_id,
    });
  }

  async #park(cause: unknown): Promise<void> {
    const text = cause instanceof Error ? cause.message : String(cause);
    await this.#ports.store
      .park(this.#name.stream_id, text)
      .catch((error: unknown) => this.#ports.warn(error, this.#name));
  }
}

/** A turn that met a bug of ours, with the input that met it when that is known. */
class TurnFailure extends Error {
  readonly entry: unknown;
  readonly weight: number;

  constructor(cause: unknown, entry?: unknown, weight = 1) {
    super("a turn failed", { cause });
    this.entry = entry;
    this.weight = weight;
  }
}

function isEmpty(effects: Iterable<unknown>): boolean {
  for (const _ of effects) return false;
  return true;
}

function roundUp(ms: number): number {
  return Math.ceil(ms / 1_000) * 1_000;
}
