/** Every state that a small loop can come to, by every input that may reach it, stale ones too. */
import { strict as assert } from "node:assert";
import type { ClaimInput, Command, OutcomeInput } from "../../schemas/command.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import { errorType } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import { commandId } from "../../schemas/ids.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { CATALOG_PREFIX } from "../../schemas/playbook/stored-result.ts";
import type { LoopStart } from "../../schemas/loop-begun.ts";
import { toRanges } from "../../schemas/ranges.ts";
import type { LoopInput } from "../../schemas/loop-turns.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import type { LoopState, Running } from "../../services/loops/state.ts";
import { turnAt } from "./given.ts";
import { playbookOf } from "./execution-play.ts";

export interface World {
  n: number;
  /** `loop.spec` of the step, in YAML's flow style. */
  spec: string;
  /** Claims of one command at most: what could go on for ever is tried twice. */
  deliveries: number;
}

const PIN = { path: "t", version: 1, hash: "abc" };
const NOW = 1_000;
const WORKERS = ["w1", "w2"];

/** The playbook of a world, loaded. */
export function turnOf({ spec }: World, more: Partial<TurnContext> = {}): TurnContext {
  const text = playbookOf(`
- step: each
  loop: {in: "{{ n }}", iterator: item, spec: {${spec}}}
  tool: {kind: noop}
`);
  const playbook = parsePlaybook(text) as unknown as Json;
  const loaded = new Map([[`${CATALOG_PREFIX}t@1#abc`, playbook]]);
  const turn = turnAt(NOW, { loaded, ...more });
  return { ...turn, settings: { ...turn.settings, max_attempts: 2 } };
}

export function startOf({ n }: World): LoopStart {
  const scope = {
    execution: { id: "1", path: "t" },
    ...{ workload: { n }, ctx: {}, steps: {} },
  };
  const ids = { execution_id: "1", loop_id: "2", step: "each", activation: 1 };
  return { type: "start", ...ids, playbook: PIN, scope };
}

/** One input, and whether it must be refused in this state. */
interface Move {
  input: LoopInput;
  turn?: Partial<TurnContext>;
  refused?: boolean;
}

export interface Explored {
  states: number;
  moves: number;
  refusals: number;
  ends: Map<string, number>;
}

/** Walks every state; checks each move. Throws at the first that breaks a rule. */
export function explore(world: World): Explored {
  const context = turnOf(world);
  const found = new Map<string, LoopState>();
  const before = new Map<string, Set<string>>();
  const ends = new Map<string, number>();
  const queue: string[] = [];
  const counts = { moves: 0, refusals: 0 };
  function meet(state: LoopState, from?: string): void {
    const key = JSON.stringify(loopMachine.freeze(state));
    const known = before.get(key) ?? new Set();
    before.set(key, from === undefined ? known : known.add(from));
    if (found.has(key)) return;
    found.set(key, state);
    queue.push(key);
  }
  meet(loopMachine.initial());
  for (const key of queue) {
    const state = found.get(key) as LoopState;
    if (state.status === "done") note(ends, state, world);
    for (const move of movesOf(state, world)) {
      counts.moves += 1;
      const next = take(state, move, context, world);
      if (next === "refused") counts.refusals += 1;
      else meet(next, key);
    }
  }
  assertAllEnd(found, before);
  return { states: found.size, ...counts, ends };
}

function note(ends: Map<string, number>, state: LoopState, { n }: World): void {
  if (state.status !== "done") return;
  const { status, stats } = state.report;
  const { success, failed, not_run } = stats;
  assert.equal(success + failed + not_run, n);
  if (status === "ok") assert.equal(not_run, 0, "ok, and not all ran");
  ends.set(status, (ends.get(status) ?? 0) + 1);
}

/** From every state some end can be reached: nothing gets stuck. */
function assertAllEnd(found: Map<string, LoopState>, before: Map<string, Set<string>>): void {
  const reaching = [...found].flatMap(([key, state]) => (state.status === "done" ? [key] : []));
  const known = new Set(reaching);
  for (const key of reaching) {
    for (const earlier of before.get(key) ?? []) {
      if (known.has(earlier)) continue;
      known.add(earlier);
      reaching.push(earlier);
    }
  }
  assert.equal(known.size, found.size, "a state from which the loop cannot end");
}

function take(
  state: LoopState,
  { input, turn, refused }: Move,
  context: TurnContext,
  world: World,
): LoopState | "refused" {
  let facts: NewEvent[];
  try {
    facts = loopMachine.decide(input, state, { ...context, ...turn });
  } catch (error) {
    if (errorType(error) !== "REJECTED") throw error;
    assert.ok(refused, `refused: ${JSON.stringify(input)} ${String(error)}`);
    return "refused";
  }
  assert.ok(!refused || facts.length === 0, `taken: ${JSON.stringify(input)}`);
  let next = loopMachine.fork(state);
  for (const fact of facts) next = loopMachine.evolve(next, fact, NOW, 0);
  check(state, facts, next, world);
  return next;
}

function check(state: LoopState, facts: NewEvent[], next: LoopState, world: World): void {
  if (facts.length === 0) return;
  const dones = facts.filter(fact => fact.event_type === "loop.done").length;
  assert.notEqual(state.status, "done", "facts after loop.done");
  assert.equal(dones, next.status === "done" ? 1 : 0);
  // Facts are folded again after a crash: twice must be as once.
  let twice = loopMachine.thaw(loopMachine.freeze(next));
  for (const fact of facts) twice = loopMachine.evolve(twice, fact, NOW, 0);
  assert.deepEqual(loopMachine.freeze(twice), loopMachine.freeze(next), "a fact folded twice");
  if (next.status !== "running") return;
  assert.ok(next.open.size <= next.plan.window, "more open than the window");
  const open = [...next.open.values()].flatMap(itemsOf);
  for (const index of Array(world.n).keys()) {
    const places = [next.done.has(index), next.failed.has(index)].filter(Boolean).length;
    assert.ok(places <= 1, `item ${index} succeeded and failed`);
    const times = open.filter(one => one === index).length;
    assert.ok(times <= 1, `item ${index} is open twice`);
  }
}

function itemsOf({ frame, iter_index = 0 }: Command): number[] {
  return frame ? Array.from({ length: frame.count }, (_, at) => frame.first + at) : [iter_index];
}

function movesOf(state: LoopState, world: World): Move[] {
  const start = startOf(world);
  const always: Move[] = [
    { input: start },
    { input: { type: "wake" } },
    { input: { type: "stop", reason: "enough", start } },
    { input: { type: "cancel", reason: "enough", start } },
  ];
  if (state.status === "none") return always;
  if (state.status === "done") return [...always, ...lateMoves(0, true)];
  const deaths = [["w1"], ["w2"], WORKERS].map((gone): Move => {
    const seen = new Map(WORKERS.map(one => [one, gone.includes(one) ? "gone" : NOW] as const));
    return { input: { type: "wake" }, turn: { seen } };
  });
  const settled = [...Array(world.n).keys()].find(
    index => state.done.has(index) || state.failed.has(index),
  );
  return [
    ...always,
    ...deaths,
    ...[...state.open.values()].flatMap(command => movesOn(command, state, world)),
    ...(settled === undefined ? [] : lateMoves(settled, !openAgain(state, settled))),
  ];
}

function openAgain(state: Running, index: number): boolean {
  return [...state.open.values()].some(command => itemsOf(command).includes(index));
}

const claimBy = (worker: string) => ({
  ...{ worker_id: worker, incarnation: worker, claim_id: `of ${worker}` },
});

/** What a ghost says of an item that is over. */
function lateMoves(iter_index: number, refused: boolean): Move[] {
  const command_id = commandId({
    ...{ execution_id: "1", step: "each", activation: 1, iter_index, attempt: 1 },
  });
  return [
    { input: { type: "claim", command_id, ...claimBy("w1") }, refused },
    { input: outcome(command_id, 1, "w1", true), refused },
  ];
}

function outcome(command_id: string, delivery: number, worker_id: string, ok: boolean) {
  const error = { kind: "logic", retryable: false, code: "X", message: "broke" };
  const result = ok ? { status: "ok" as const, context: 1 } : { status: "error" as const, error };
  return {
    type: "outcome" as const,
    command_id,
    delivery,
    worker_id,
    result,
  } satisfies OutcomeInput;
}

function movesOn(command: Command, state: Running, { deliveries }: World): Move[] {
  const { command_id, delivery, holder } = command;
  if (!holder) {
    if (delivery >= deliveries) return [{ input: claimInput(command_id, "w1") }];
    return [
      ...WORKERS.map(worker => ({ input: claimInput(command_id, worker) })),
      { input: outcome(command_id, delivery, "w1", true), refused: true },
    ];
  }
  const other = holder.worker_id === "w1" ? "w2" : "w1";
  const release = { type: "release" as const, command_id, worker_id: holder.worker_id };
  return [
    { input: claimInput(command_id, holder.worker_id) },
    { input: claimInput(command_id, other), refused: true },
    { input: outcome(command_id, delivery - 1, other, true), refused: true },
    { input: { ...release, delivery: delivery - 1 }, refused: true },
    ...(delivery < deliveries ? [{ input: { ...release, delivery } }] : []),
    ...(command.frame ? framesOf(command, state) : endsOf(command)),
  ];
}

function claimInput(command_id: string, worker: string): ClaimInput {
  return { type: "claim", command_id, ...claimBy(worker) };
}

function endsOf({ command_id, delivery, holder }: Command): Move[] {
  const worker = holder?.worker_id ?? "";
  return [true, false].map(ok => ({
    input: { ...outcome(command_id, delivery, worker, ok), stats: quick(1) },
  }));
}

/** Items take no time, so that frames grow. */
const quick = (items: number) => ({ task_runs: items, retries: 0, duration_ms: 0 });

/** All that is left; a first part of it; all with one failed; nothing; and what is not its own. */
function framesOf(command: Command, state: Running): Move[] {
  const { command_id, delivery, holder } = command;
  const left = itemsOf(command).filter(index => !state.done.has(index) && !state.failed.has(index));
  const report = (ok: number[], failed: number[], final: boolean): LoopInput => ({
    ...outcome(command_id, delivery, holder?.worker_id ?? "", true),
    result: { status: "ok", context: { ok: ok.map(() => 1) } },
    frame: { ok: toRanges(ok), failed: toRanges(failed), final },
    stats: quick(ok.length + failed.length),
  });
  const [first = 0, ...rest] = left;
  const settled = itemsOf(command).filter(index => !left.includes(index));
  return [
    { input: report(left, [], true) },
    { input: report(rest, [first], true) },
    { input: report([], [], true) },
    ...(left.length > 1 ? [{ input: report([first], [], false) }] : []),
    { input: report([state.plan.size], [], false), refused: true },
    ...settled.slice(0, 1).map(index => ({ input: report([index], [], true), refused: true })),
  ];
}
