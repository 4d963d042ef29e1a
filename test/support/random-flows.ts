/** Random small playbooks with what their steps will answer, and what their runs must come to. */
import type { Grant } from "../../schemas/frozen-scope.ts";
import { failed, ok, type Reply } from "./worker-replies.ts";

export type Random = () => number;

/** mulberry32: numbers in [0, 1), the same for the same seed. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)] as T;
}

type Guard = "always" | "never" | "if_failed" | "if_ok";
const WHEN: Record<Guard, string> = {
  always: "",
  never: ', when: "{{ workload.nothing }}"',
  if_failed: ", when: \"{{ event.status == 'failed' }}\"",
  if_ok: ", when: \"{{ event.status == 'ok' }}\"",
};

interface RandomLoop {
  size: number;
  window: number;
  isSequential: boolean;
  tolerance: number;
  /** Shards of so many items; whether some of them may fail, or the first that does ends it. */
  fanout?: { batch: number; allowPartial: boolean; failFast: boolean };
}

interface RandomStep {
  name: string;
  isInclusive: boolean;
  arcs: { to: string; guard: Guard }[];
  /** Arc back, taken at most twice. */
  back?: string;
  isBestEffort: boolean;
  loop?: RandomLoop;
  /** Whether it fails, or each of its iterations does. */
  fails: boolean[];
}

export interface RandomFlow {
  steps: RandomStep[];
  hasFinal: boolean;
  yaml: string;
  more: string;
}

/** `mayFanOut`: whether some of its loops are fan-outs. */
export function randomFlow(random: Random, mayFanOut = true): RandomFlow {
  const count = 1 + Math.floor(random() * 6);
  const steps = Array.from({ length: count }, (_, place) =>
    randomStep(random, { place, count, mayFanOut }),
  );
  const hasFinal = random() < 0.2;
  const last: RandomStep = {
    name: "last",
    isInclusive: false,
    arcs: [],
    isBestEffort: false,
    fails: [random() < 0.2],
  };
  if (hasFinal) steps.push(last);
  return {
    steps,
    hasFinal,
    yaml: steps.map(yamlOf).join("\n"),
    more: hasFinal ? "executor: {spec: {final_step: last}}" : "",
  };
}

function randomStep(
  random: Random,
  { place, count, mayFanOut }: { place: number; count: number; mayFanOut: boolean },
): RandomStep {
  const later = Array.from({ length: count - place - 1 }, (_, offset) => `s${place + 1 + offset}`);
  const arcs = Array.from({ length: later.length === 0 ? 0 : Math.floor(random() * 4) }, () => ({
    to: pick(random, later),
    guard: pick<Guard>(random, ["always", "always", "always", "never", "if_failed", "if_ok"]),
  }));
  const isLoop = random() < 0.45;
  // Above two windows items travel in frames.
  const size = Math.floor(random() * (random() < 0.5 ? 18 : 5));
  const loop: RandomLoop = {
    size,
    window: 1 + Math.floor(random() * 3),
    isSequential: random() < 0.4,
    tolerance: Math.floor(random() * 2),
  };
  if (mayFanOut && random() < 0.4) {
    const [batch, allowPartial] = [1 + Math.floor(random() * 3), random() < 0.7];
    loop.fanout = { batch: random() < 0.5 ? 1 : batch, allowPartial, failFast: random() < 0.2 };
  }
  return {
    name: `s${place}`,
    isInclusive: random() < 0.6,
    arcs,
    ...(random() < 0.25 && { back: `s${Math.floor(random() * (place + 1))}` }),
    isBestEffort: random() < 0.15,
    ...(isLoop && { loop }),
    fails: Array.from({ length: isLoop ? size : 1 }, () => random() < 0.12),
  };
}

function yamlOf(step: RandomStep): string {
  const { name, loop, back } = step;
  const rounds = `ctx.rounds_${name}`;
  const count = `(${rounds} or 0)`;
  const again = back
    ? [`{step: ${back}, when: "{{ ${count} < 2 }}", set: {${rounds}: "{{ ${count} + 1 }}"}}`]
    : [];
  const arcs = step.arcs.map(({ to, guard }) => `{step: ${to}${WHEN[guard]}}`);
  const mode = step.isInclusive ? "inclusive" : "exclusive";
  const ordered = loop?.isSequential
    ? `mode: sequential, tolerated_failure_count: ${loop.tolerance}`
    : `mode: parallel, max_in_flight: ${loop?.window}, tolerated_failure_count: ${loop?.tolerance}`;
  const spec = [
    ...(step.isBestEffort ? ["policy: {failure: {mode: best_effort}}"] : []),
    ...(loop?.fanout ? [`loop_mode: fanout, fanout: ${fanoutOf(loop)}`] : []),
  ];
  const ofLoop = loop?.fanout ? "" : `, spec: {${ordered}}`;
  return [
    `- step: ${name}`,
    spec.length > 0 ? `  spec: {${spec.join(", ")}}` : "",
    loop ? `  loop: {in: ${loop.size}, iterator: item${ofLoop}}` : "",
    "  tool: {kind: noop}",
    `  next: {spec: {mode: ${mode}}, arcs: [${[...again, ...arcs].join(", ")}]}`,
  ]
    .filter(Boolean)
    .join("\n");
}

function fanoutOf({ window, fanout }: RandomLoop): string {
  return JSON.stringify({
    ...{ max_in_flight: window, max_shard_retries: 1, batch: fanout?.batch },
    ...{ allow_partial: fanout?.allowPartial, fail_fast: fanout?.failFast },
  });
}

/** What a worker finds when it runs a granted command. */
export function answerOf(flow: RandomFlow, grant: Pick<Grant, "step" | "iteration">): Reply {
  const step = flow.steps.find(one => one.name === grant.step) as RandomStep;
  const place = grant.iteration?.index ?? 0;
  return step.fails[place] ? failed(`${step.name} ${place}`) : ok({ step: step.name, place });
}

/** Whether a step fails, by its outcomes alone. */
export function stepFails(step: RandomStep): boolean {
  const { loop, fails, isBestEffort } = step;
  const count = fails.filter(Boolean).length;
  if (!loop) return count > 0;
  const { size, fanout } = loop;
  if (fanout) return count > 0 && (!fanout.allowPartial || count === size);
  return !isBestEffort && count > loop.tolerance;
}

export interface Expected {
  status: "COMPLETED" | "FAILED";
  /** How often each step is entered; undefined when a failure may cut other branches short. */
  entered?: Record<string, number>;
}

/**
 * What a run without loop-backs must come to. All arcs lead to later steps, so every token that can
 * reach a step has come to it before it is entered: each step that is reached at all is entered
 * once.
 */
export function expectedOf(flow: RandomFlow): Expected | undefined {
  if (flow.steps.some(step => step.back)) return undefined;
  // Which shards have ended before the first one fails, only the world decides.
  if (flow.steps.some(step => step.loop?.fanout?.failFast)) return undefined;
  const entered: Record<string, number> = { s0: 1 };
  let isFailed = false;
  let isCut = false;
  for (const step of flow.steps) {
    if (step.name === "last" || !entered[step.name]) continue;
    const fails = stepFails(step);
    const taken = takenBy(step, fails);
    if (fails && !step.isBestEffort) {
      isFailed = true;
      if (taken.length === 0) isCut = true;
    }
    for (const to of taken) entered[to] = 1;
  }
  if (flow.hasFinal && !isCut) {
    entered["last"] = 1;
    isFailed ||= flow.steps.at(-1)?.fails[0] === true;
  }
  return { status: isFailed ? "FAILED" : "COMPLETED", ...(!isCut && { entered }) };
}

function takenBy(step: RandomStep, fails: boolean): string[] {
  const mayFire = (guard: Guard) =>
    fails && !step.isBestEffort
      ? guard === "if_failed"
      : guard === "always" || guard === (fails ? "if_failed" : "if_ok");
  const open = step.arcs.filter(arc => mayFire(arc.guard)).map(arc => arc.to);
  return step.isInclusive ? open : open.slice(0, 1);
}
