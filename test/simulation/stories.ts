// Playbooks made from a seed, with what their tools will do and what their runs must come to.
import { randomFlow, expectedOf, pick, type Random } from "../support/random-flows.ts";
import { playbookOf } from "../support/execution-play.ts";

export const STEP_KINDS = [
  "tool",
  "retry",
  "sequential",
  "parallel",
  "frames",
  "distributed",
  "cursor",
  "fanout",
  "child",
  "graph",
] as const;
export type StepKind = (typeof STEP_KINDS)[number];

/** What a tool finds at one place of a step: an item's index, or 0. */
export type Fate = "ok" | "fails" | "flaky";

export interface StoryStep {
  name: string;
  kind: StepKind;
  size: number;
  fates: Fate[];
  /** What `ctx.mark` is when the step runs, where that is known. */
  mark?: string;
  /** Failed items that the loop bears. */
  tolerance: number;
  fanout?: Fanout;
}

/** How a fan-out goes about its shards. */
interface Fanout {
  /** Items of a shard. */
  batch: number;
  retries: number;
  failFast: boolean;
  /** Some may fail beside others that succeed. */
  mayBePartial: boolean;
}

export interface Story {
  path: string;
  content: string;
  steps: StoryStep[];
  /** The status that the run must end with, where nobody cancels it and no work is given up. */
  expected?: "COMPLETED" | "FAILED";
  /** How often each step is entered then. */
  entered?: Record<string, number>;
  /** Of a child that its steps start. */
  child?: Story;
}

const ON_RETRYABLE = "{{ output.status == 'error' and output.error.retryable }}";
const RETRY = `spec: {policy: {rules: [{when: "${ON_RETRYABLE}",
      then: {do: retry, attempts: 4, backoff: fixed, delay: 0.05}}]}}`;

/** A playbook of this path in which every kind of step may come. */
export function story(random: Random, path: string): Story {
  if (random() < 0.35) return graphStory(random, path);
  const count = 1 + Math.floor(random() * 3);
  const kinds = Array.from({ length: count }, () => pick(random, STEP_KINDS.slice(0, -1)));
  return lineStory(random, path, kinds);
}

/** Branches, joins, guards, loops and ways back. */
function graphStory(random: Random, path: string): Story {
  const flow = randomFlow(random);
  const { status, entered } = expectedOf(flow) ?? {};
  const steps = flow.steps.map(({ name, loop, fails }) => ({
    name,
    kind: "graph" as const,
    size: loop?.size ?? 1,
    fates: fails.map((isBad): Fate => (isBad ? "fails" : "ok")),
    tolerance: loop?.tolerance ?? 0,
  }));
  return {
    ...{ path, steps, content: named(playbookOf(flow.yaml, flow.more), path) },
    ...(status && { expected: status }),
    ...(entered && { entered }),
  };
}

function named(text: string, path: string): string {
  return text.replace("{name: t, path: t}", `{name: t, path: ${path}}`);
}

/** One step after the other, each seeing what the one before has written. */
export function lineStory(random: Random, path: string, kinds: StepKind[]): Story {
  const steps = kinds.map((kind, place) => lineStep(random, kind, place));
  const child = kinds.includes("child")
    ? lineStory(random, `${path}/child`, [pick(random, ["tool", "parallel"])])
    : undefined;
  const workflow = steps.map((step, place) => yamlOf(step, steps[place + 1]?.name, path));
  const failing = steps.find(step => isFailed(step, child));
  const upTo = failing ? steps.slice(0, steps.indexOf(failing) + 1) : steps;
  return {
    ...{ path, steps, content: named(playbookOf(workflow.join("\n")), path) },
    ...(!steps.some(isOpenEnded) && {
      expected: failing ? "FAILED" : "COMPLETED",
      entered: Object.fromEntries(upTo.map(({ name }) => [name, 1])),
    }),
    ...(child && { child }),
  };
}

const failingOf = ({ fates }: StoryStep) => fates.filter(fate => fate === "fails").length;

function isFailed(step: StoryStep, child: Story | undefined): boolean {
  const { kind, size, tolerance, fanout } = step;
  if (kind === "child") return child?.expected === "FAILED";
  // Rows that fail are counted, and fail nobody.
  if (kind === "cursor") return false;
  const failing = failingOf(step);
  if (fanout?.mayBePartial) return failing > 0 && failing === size;
  return failing > tolerance;
}

/** Which shards have ended before the first one fails, only the world decides. */
function isOpenEnded(step: StoryStep): boolean {
  return step.fanout?.failFast === true && failingOf(step) > 0;
}

const LOOPS: ReadonlySet<StepKind> = new Set(["sequential", "parallel", "frames", "distributed"]);
const SIZES: Partial<Record<StepKind, [number, number]>> = {
  sequential: [1, 5],
  parallel: [0, 5],
  frames: [7, 20],
  distributed: [2, 8],
  cursor: [0, 9],
  fanout: [1, 8],
};

function lineStep(random: Random, kind: StepKind, place: number): StoryStep {
  const [low, high] = SIZES[kind] ?? [1, 1];
  const size = low + Math.floor(random() * (high - low + 1));
  const fates = Array.from({ length: size }, (): Fate => {
    if (kind === "retry") return "flaky";
    if (kind === "child") return "ok";
    const roll = random();
    return roll < 0.08 ? "fails" : roll < 0.16 ? "flaky" : "ok";
  });
  const failing = fates.filter(fate => fate === "fails").length;
  const bears = LOOPS.has(kind) && random() < 0.8;
  return {
    ...{ name: `s${place}`, kind, size, fates, tolerance: bears ? failing : 0 },
    mark: place === 0 ? "none" : `s${place - 1}`,
    ...(kind === "fanout" && { fanout: fanout(random) }),
  };
}

function fanout(random: Random): Fanout {
  return {
    batch: random() < 0.6 ? 1 : 2 + Math.floor(random() * 2),
    retries: 1 + Math.floor(random() * 2),
    failFast: random() < 0.2,
    mayBePartial: random() < 0.7,
  };
}

function yamlOf(step: StoryStep, next: string | undefined, path: string) {
  const { name, kind } = step;
  const arcs = next ? `  next: {arcs: [{step: ${next}, set: {ctx.mark: ${name}}}]}` : "";
  return [`- step: ${name}`, loopOf(step), toolOf(kind, path), arcs].filter(Boolean).join("\n");
}

function loopOf({ kind, size, tolerance, fanout }: StoryStep): string {
  const bears = `tolerated_failure_count: ${tolerance}`;
  switch (kind) {
    case "sequential":
      return `  loop: {in: ${size}, iterator: item, spec: {mode: sequential, ${bears}}}`;
    case "parallel":
    case "frames":
      return `  loop: {in: ${size}, iterator: item,
    spec: {mode: parallel, max_in_flight: 3, ${bears}}}`;
    case "distributed":
      return `  loop: {in: ${size}, iterator: item,
    spec: {mode: parallel, max_in_flight: 4, policy: {exec: distributed}, ${bears}}}`;
    case "cursor":
      return `  loop:
    iterator: row
    cursor: {kind: postgres, auth: pg, claim: "claim ${size} limit {{ __frame_max_rows }}"}
    spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: 3}}`;
    case "fanout":
      return `  spec: {loop_mode: fanout, fanout: {max_in_flight: 3,
    batch: ${fanout?.batch}, max_shard_retries: ${fanout?.retries},
    allow_partial: ${fanout?.mayBePartial}, fail_fast: ${fanout?.failFast}}}
  loop: {in: ${size}, iterator: item}`;
    default:
      return "";
  }
}

function toolOf(kind: StepKind, path: string): string {
  if (kind === "child") {
    return `  tool: {kind: playbook, path: ${path}/child, return_result: true, timeout: 600}`;
  }
  // A shard is tried again by its fan-out.
  const rules = kind === "fanout" ? "" : `, ${RETRY}`;
  return `  tool: {kind: noop, input: {mark: "{{ ctx.mark or 'none' }}"}${rules}}`;
}
