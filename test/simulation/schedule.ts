// One schedule from its seed: a world, runs, faults, and what was found when all was quiet again.
import { pick, randomOf, type Random } from "../support/random-flows.ts";
import { findBroken, isQuiet } from "./checks.ts";
import { Client } from "./client.ts";
import { FAULT_NAMES, FAULTS, makePeace } from "./faults.ts";
import type { Sabotage } from "./sabotage.ts";
import { storyWith, STORIES } from "./remembered.ts";
import type { StepKind } from "./stories.ts";
import type { Gust } from "./weather.ts";
import { World } from "./world.ts";

/** Steps after which a schedule that has not ended will not end. */
const STEPS_MAX = 30_000;
const QUIET_EVERY = 25;
/** Every schedule has at least so many faults and items. */
const FAULTS_MIN = 3;
const ITEMS_MIN = 8;

export interface ScheduleResult {
  seed: number;
  faults: string[];
  steps: number;
  /** Of its trace. */
  digest: string;
  executions: number;
  items: number;
  /** Fault × kind of step → how often. */
  struck: [string, number][];
}

export interface ScheduleOptions {
  sabotage?: Sabotage;
  trace?: (line: string) => void;
}

interface Plan {
  at: number;
  name: string;
}

/** Plays the schedule of a seed. The same seed plays the same. */
export async function playSchedule(
  seed: number,
  options: ScheduleOptions = {},
): Promise<ScheduleResult> {
  const random = randomOf(seed);
  const mend = options.sabotage?.machines?.();
  try {
    return await play(seed, random, options);
  } finally {
    mend?.();
  }
}

async function play(
  seed: number,
  random: Random,
  { sabotage, trace }: ScheduleOptions,
): Promise<ScheduleResult> {
  const world = new World({
    random,
    rates: ratesOf(random),
    maxAttempts: random() < 0.25 ? 2 : 100,
    snapshotEvents: pick(random, [3, 10, 2_000]),
    slowShare: sabotage?.slowShare ?? pick(random, [0.01, 0.03, 0.12]),
    ...(sabotage && { sabotage }),
    ...(trace && { trace }),
  });
  const client = new Client(world);
  const servers = 1 + Math.floor(random() * 3);
  for (let at = 0; at < servers; at += 1) world.boot(`server-${at}`, "server");
  const workers = 1 + Math.floor(random() * 2);
  for (let at = 0; at < workers; at += 1) world.boot(`worker-${at}`, "worker");
  const items = wishAll(world, client, { random, kind: sabotage?.kind });
  const plans = plansOf(random);
  const struck = await playOut(world, client, plans);
  const faults = await findBroken(world, client);
  if (struck === "endless") faults.push(`it has not ended after ${world.scheduler.steps} steps`);
  return {
    ...{ seed, faults, items, steps: world.scheduler.steps, digest: world.scheduler.digest() },
    executions: world.tables.executions.size,
    struck: [...world.weather.struck],
  };
}

function ratesOf(random: Random): Record<Gust, number> {
  const upTo = (most: number) => (random() < 0.4 ? 0 : random() * most);
  return {
    drop: upTo(0.06),
    double: upTo(0.06),
    delay: upTo(0.06),
    "away before": upTo(0.02),
    "away after": upTo(0.02),
    "slow commit": upTo(0.15),
  };
}

/** At least two runs with so many items between them. */
function wishAll(
  world: World,
  client: Client,
  { random, kind }: { random: Random; kind: StepKind | undefined },
): number {
  let items = 0;
  for (let run = 0; run < 2 || items < ITEMS_MIN; run += 1) {
    const told = storyWith(kind, Math.floor(random() * STORIES));
    world.register(told);
    for (const { size } of told.steps) items += size;
    const deed = random();
    client.wish({
      ...{ story: told, key: `key-${run}`, startAt: random() * 200, redrives: random() < 0.5 },
      ...(deed < 0.15 && { cancelAfter: random() * 1_500 }),
      ...(deed > 0.1 && deed < 0.35 && { pauseAfter: pauseOf(random) }),
    });
  }
  return items;
}

const pauseOf = (random: Random) => ({ begin: random() * 1_000, hold: random() * 3_000 });

function plansOf(random: Random): Plan[] {
  const count = FAULTS_MIN + Math.floor(random() * 6);
  const plans = Array.from({ length: count }, (_, index) => ({
    at: 20 + Math.floor(random() * (index < FAULTS_MIN ? 250 : 500)),
    name: pick(random, FAULT_NAMES),
  }));
  return plans.sort((one, other) => one.at - other.at);
}

/** This fault, or another one where nobody is there for it. */
function strike(world: World, wanted: string): void {
  for (let name = wanted, tries = 0; tries < 10; tries += 1) {
    if (FAULTS[name]?.(world)) return world.weather.count(name);
    name = pick(world.scheduler.random, FAULT_NAMES);
  }
}

async function playOut(world: World, client: Client, plans: Plan[]): Promise<"quiet" | "endless"> {
  const { scheduler } = world;
  let isPeace = false;
  const last = (plans.at(-1)?.at ?? 0) + 100;
  while (scheduler.steps < STEPS_MAX) {
    while (plans[0] && plans[0].at <= scheduler.steps) {
      strike(world, (plans.shift() as Plan).name);
    }
    if (!isPeace && scheduler.steps > last) {
      isPeace = true;
      makePeace(world);
    }
    const next = scheduler.take();
    if (!next) return "endless";
    await scheduler.run(next);
    if (scheduler.steps % QUIET_EVERY === 0 && isPeace && isQuiet(world, client)) return "quiet";
  }
  return "endless";
}
