/** An execution and its loops played in memory; every turn is checked by the rules of machines. */
import { strict as assert } from "node:assert";
import type { Effect, Machine, MessageInput, Needs, TurnContext } from "../../schemas/decider.ts";
import type { Rejected } from "../../schemas/errors.ts";
import { errorType } from "../../schemas/errors.ts";
import type { EventType, NewEvent, ResultReference, StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { CATALOG_PREFIX, LostValue } from "../../schemas/playbook/stored-result.ts";
import {
  executionMachine,
  type ExecutionAnswer,
  type ExecutionInput,
} from "../../services/executions/machine.ts";
import type { ExecutionStart } from "../../services/executions/begin.ts";
import { fanoutMachine } from "../../services/fanout/machine.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import { answeredAsService } from "./play-family.ts";
import { decideWith, signsOf, turnAt } from "./given.ts";
import { logValue } from "./play-results.ts";
import { ok, replyOf, statsOf, type Answers, type Reply } from "./worker-replies.ts";

type AnyMachine = Machine<unknown, { type: string }, { changed: boolean; grant?: Grant }>;
type Input = { type: string } & Record<string, unknown>;

interface Stream {
  machine: AnyMachine;
  state: unknown;
  events: StoredEvent[];
  acked: Set<string>;
}

export const MACHINES = { executions: executionMachine, loops: loopMachine, fanout: fanoutMachine };

export const EXECUTION_ID = "1000";
const PIN = { path: "t", version: 1, hash: "abc" };

/** A playbook around a workflow in YAML, with further root keys. */
export function playbookOf(workflow: string, more = ""): string {
  const head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t, path: t}";
  return `${head}\n${more}\nworkflow:\n${workflow}`;
}

export class Play {
  readonly streams = new Map<string, Stream>();
  readonly results = new Map<string, Json>();
  /** References whose values are kept no longer. */
  readonly lost = new Set<string>();
  /** Workers that live, by incarnation. */
  readonly alive = new Set(["w1", "w2"]);
  /** Workers that have ever lived: none comes back under its old name. */
  begun = 2;
  /** Workers without a row: they send no beats. */
  readonly silent = new Set<string>();
  /** When a worker's row was last renewed; just now when it is not here. */
  readonly lastSeen = new Map<string, number>();
  /** Commands that their living workers say they do not hold. */
  readonly disowned = new Set<string>();
  now = 1_000_000;
  /** Refusals met so far, by reason. */
  readonly refusals: string[] = [];
  /** Milliseconds that workers say an item took; while they do not say, nothing is framed. */
  itemMs: number | undefined;
  /** Checks of each turn that cost much: off for long plays. */
  thorough = true;
  readonly settings = turnAt(0).settings;
  readonly #playbook: Json;
  readonly #loaded = new Map<string, Json | LostValue>();
  readonly #stored = new Map<string, ResultReference>();
  #id = 5_000n;
  #claims = 0;

  constructor(text: string) {
    this.#playbook = parsePlaybook(text) as unknown as Json;
  }

  /** A play of a workflow, started. */
  static of(workflow: string, payload: JsonObject = {}, more = ""): Play {
    const play = new Play(playbookOf(workflow, more));
    play.start(payload);
    return play;
  }

  start(payload: JsonObject = {}, more: Partial<ExecutionStart> = {}): void {
    const input = { type: "start", execution_id: EXECUTION_ID, playbook: PIN, payload, ...more };
    this.send(EXECUTION_ID, input, executionMachine);
  }

  get status(): string {
    return this.ask({ type: "describe" }).status;
  }

  get log(): StoredEvent[] {
    return [...this.streams.values()].flatMap(stream => stream.events);
  }

  /** Events of one type, of the execution and its loops. */
  all<Type extends EventType>(type: Type) {
    return this.log.filter(
      (event): event is StoredEvent & { event_type: Type } => event.event_type === type,
    );
  }

  /** Steps in the order in which they were entered. */
  get entered(): string[] {
    return this.eventsOf(EXECUTION_ID)
      .filter(one => one.event_type === "step.enter" || (one.meta as { enter?: boolean }).enter)
      .map(event => event.node_name ?? "");
  }

  eventsOf(streamId: string): StoredEvent[] {
    return this.streams.get(streamId)?.events ?? [];
  }

  /** Of the newest generation. */
  get terminal(): StoredEvent | undefined {
    return this.eventsOf(EXECUTION_ID).findLast(event =>
      /^(playbook\.(completed|failed)|execution\.cancelled)$/.test(event.event_type),
    );
  }

  get state() {
    return this.streams.get(EXECUTION_ID)?.state as Parameters<typeof executionMachine.fork>[0];
  }

  /** One input to one stream, as a mailbox takes it. Throws what the machine refuses. */
  send(
    streamId: string,
    input: Input,
    machine?: AnyMachine,
  ): { changed: boolean; grant?: Grant } & Partial<ExecutionAnswer> {
    let stream = this.streams.get(streamId);
    if (!stream) {
      assert.ok(machine, `no stream ${streamId}`);
      stream = { machine, state: machine.initial(), events: [], acked: new Set() };
      this.streams.set(streamId, stream);
    }
    const context = this.context();
    // What was loaded for another turn may be gone: each decision asks for all that its answer
    // needs.
    this.#loaded.clear();
    const before = this.thorough ? JSON.stringify(stream.machine.freeze(stream.state)) : "";
    const draft = stream.machine.fork(stream.state);
    const facts = decideWith(stream.machine, input, draft, context, needs => this.#provide(needs));
    let state = stream.machine.fork(stream.state);
    for (const fact of facts) state = this.#record(stream, streamId, state, fact);
    if (this.thorough) this.#check(stream, before, facts, state);
    stream.state = state;
    return stream.machine.answer(input, state, context, facts.length > 0);
  }

  #record(stream: Stream, streamId: string, state: unknown, fact: NewEvent): unknown {
    const version = stream.events.length + 1;
    // The log keeps JSON: nothing of a decision's own objects may be shared with it.
    const stored = JSON.parse(JSON.stringify(fact)) as NewEvent;
    const place = { execution_id: EXECUTION_ID, stream_id: streamId, version, at: this.now };
    stream.events.push({ ...stored, ...place, event_id: String((this.#id += 1n)) });
    return stream.machine.evolve(state, fact, this.now, version);
  }

  #check(stream: Stream, before: string, facts: NewEvent[], after: unknown): void {
    const { machine } = stream;
    assert.equal(JSON.stringify(machine.freeze(stream.state)), before, "a committed state changed");
    let folded = machine.initial();
    for (const event of stream.events) {
      folded = machine.evolve(folded, event, event.at, event.version);
    }
    assert.equal(frozenText(machine, folded), frozenText(machine, after), "the fold differs");
    const types = facts.map(fact => fact.event_type).join(", ");
    const thawed = machine.thaw(JSON.parse(frozenText(machine, after)) as Json);
    assert.equal(frozenText(machine, thawed), frozenText(machine, after), `thaw after ${types}`);
    const pending = [...machine.pending(thawed)];
    assert.deepEqual(jsonOf(pending), jsonOf([...machine.pending(after)]), `pending ${types}`);
  }

  /** What the execution answers to an input. */
  ask(input: ExecutionInput): ExecutionAnswer {
    return this.send(EXECUTION_ID, input as unknown as Input) as ExecutionAnswer;
  }

  context(): TurnContext {
    return {
      now: this.now,
      newId: () => String((this.#id += 1n)),
      loaded: this.#loaded,
      stored: this.#stored,
      seen: new Map([...this.streams.values()].flatMap(one => signsOf(one, this))),
      disowned: this.disowned,
      settings: this.settings,
    };
  }

  #provide(needs: Needs): void {
    for (const { ref, extract } of needs.load) this.#loaded.set(ref, this.load(ref, extract));
    for (const { name, value } of needs.store) {
      const text = JSON.stringify(value);
      const ref = `noetl://execution/${name}`;
      this.results.set(ref, JSON.parse(text) as Json);
      this.#loaded.set(ref, value);
      this.#stored.set(name, { ref, bytes: text.length, tier: "memory" });
    }
  }

  load(ref: string, extract?: JsonObject): Json | LostValue {
    if (this.lost.has(ref)) return new LostValue(`the result '${ref}' is no longer kept`);
    if (ref.startsWith(CATALOG_PREFIX)) return this.#playbook;
    const value = this.results.get(ref) ?? logValue(ref, id => this.eventsOf(id), extract);
    assert.ok(value !== undefined, `nothing is stored as ${ref}`);
    return value;
  }

  /** Everything that is still to be said, by stream. */
  effects(): { stream: Stream; streamId: string; effect: Effect }[] {
    return [...this.streams].flatMap(([streamId, stream]) =>
      [...stream.machine.pending(stream.state)]
        .filter(effect => !stream.acked.has(effect.key))
        .map(effect => ({ stream, streamId, effect })),
    );
  }

  /** Carries one message to whom it is for; `lost` leaves it unacknowledged. */
  carry(from: Stream, effect: Effect & { kind: "message" }, lost = false): void {
    const { to, input } = effect;
    const sent = JSON.parse(JSON.stringify(input)) as MessageInput;
    const machine = MACHINES[to.actor];
    if (!answeredAsService(this, sent)) this.send(to.stream_id, sent, machine);
    if (!lost) from.acked.add(effect.key);
  }

  /** Carries all messages, and those that follow from them. */
  deliver(): void {
    for (;;) {
      const next = this.effects().find(one => one.effect.kind === "message");
      if (!next) return;
      this.carry(next.stream, next.effect as Effect & { kind: "message" });
    }
  }

  rings() {
    this.deliver();
    return this.effects().flatMap(({ effect }) => (effect.kind === "ring" ? [effect.ring] : []));
  }

  /** Claims the first command of a step that rings, or the one of an iteration. */
  claim(step: string, options: { index?: number; worker?: string; claimId?: string } = {}): Grant {
    const suffix = options.index === undefined ? "" : `:${options.index}:1`;
    const ring = this.rings().find(one => one.step === step && one.command_id.endsWith(suffix));
    assert.ok(ring, `no command of '${step}' rings`);
    return this.claimRing(ring, options) as Grant;
  }

  claimRing(
    ring: { command_id: string; stream_id: string },
    { worker = "w1", claimId = `c${(this.#claims += 1)}` } = {},
  ): Grant | undefined {
    const { command_id, stream_id } = ring;
    const who = { worker_id: worker, incarnation: worker, claim_id: claimId };
    const { grant } = this.send(stream_id, { type: "claim", command_id, ...who });
    return grant && (JSON.parse(JSON.stringify(grant)) as Grant);
  }

  report(grant: Grant, reply: Reply = ok(), worker = "w1"): void {
    const { command_id, delivery } = grant;
    this.send(grant.stream_id, {
      type: "outcome",
      command_id,
      delivery,
      worker_id: worker,
      ...reply,
      ...statsOf(reply, this.itemMs),
    });
    if (this.thorough) this.deliver();
  }

  /** Claims a step's command and reports it. */
  finish(step: string, reply: Reply = ok(), index?: number): void {
    this.report(this.claim(step, index === undefined ? {} : { index }), reply);
  }

  wake(streamId = EXECUTION_ID): { changed: boolean } {
    return this.send(streamId, { type: "wake" });
  }

  /** Plays on until nothing rings, in order; `table` answers by step or `step/index`, else ok. */
  run(table: Answers = {}): this {
    for (let turns = 0; ; turns += 1) {
      assert.ok(turns < 20_000, "the play does not end");
      const ring = this.rings()[0];
      if (!ring) return this;
      const grant = this.claimRing(ring) as Grant;
      this.report(grant, replyOf(table, grant));
    }
  }

  /** Runs `act`; a refusal is noted and answered as undefined. */
  try<T>(act: () => T): T | undefined {
    try {
      return act();
    } catch (error) {
      if (errorType(error) !== "REJECTED") throw error;
      this.refusals.push(String((error as Rejected).data["reason"]));
      return undefined;
    }
  }
}

function frozenText(machine: AnyMachine, state: unknown): string {
  return JSON.stringify(machine.freeze(state));
}

function jsonOf(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value)) as unknown;
}
