// Faults from a seed, one after the other, under executions that never stop; then the verdict.
import { setTimeout as pause } from "node:timers/promises";
import { ask, until } from "../actors.ts";
import { findViolations, quarantinedOf } from "./checker.ts";
import { gather, type Evidence } from "./evidence.ts";
import { FAULT_KINDS, type FaultKind } from "./faults.ts";
import type { Between } from "./kitchen-sink.ts";
import { betweenOf, setScene, type Scene, type SceneOptions } from "./scene.ts";

export interface NemesisOptions {
  seed: number;
  /** Ends after so many faults, or so many seconds, whichever is first. */
  faults: number;
  seconds: number;
  /** Names of fault kinds; all when absent. */
  only?: string[];
  scene?: Partial<SceneOptions>;
  /** Hears of each fault when it is over. */
  say?(record: FaultRecord): void;
}

export interface FaultRecord {
  number: number;
  kind: string;
  what: string;
  /** Milliseconds since 1970: when it struck, and when it was over. */
  at: number;
  over_at: number;
  /** From there to the next outcome that was accepted. */
  recovered_ms: number;
  /** The longest time without any accepted outcome from its beginning until then. */
  silence_ms: number;
}

export interface Verdict {
  seed: number;
  seconds: number;
  records: FaultRecord[];
  evidence: Evidence;
  restarts: number;
  violations: string[];
}

/** Nothing happens for longer after a fault that is over: something is stuck. */
const RECOVERY_MAX_MS = 45_000;
/** Between a recovery and the next fault. */
const PAUSE_MAX_MS = 800;

export async function runNemesis(options: NemesisOptions): Promise<Verdict> {
  const { seed, faults, seconds, only } = options;
  const lifeMs = (seconds + 400) * 1_000;
  const scene = await setScene({ seed, lifeMs, ...options.scene });
  try {
    const kinds = FAULT_KINDS.filter(kind => only?.includes(kind.name) ?? true);
    const between = betweenOf(seed);
    const begun = performance.now();
    const records: FaultRecord[] = [];
    const stuck: string[] = [];
    while (records.length < faults && performance.now() - begun < seconds * 1_000) {
      await pause(between(0, PAUSE_MAX_MS));
      const record = await strike(scene, draw(kinds, between), between);
      record.number = records.push(record);
      options.say?.(record);
      if (record.recovered_ms === Infinity) stuck.push(`silence: after ${nameOf(record)}`);
    }
    await scene.feeder.stop();
    const evidence = await settled(scene);
    const violations = [...stuck, ...findViolations(evidence)];
    const took = Math.round((performance.now() - begun) / 1_000);
    const { restarts } = scene.keeper;
    return { seed, seconds: took, records, evidence, restarts, violations };
  } finally {
    await scene.close();
  }
}

const nameOf = ({ number, kind, what }: FaultRecord) => `fault ${number} (${kind}: ${what})`;

function draw(kinds: FaultKind[], between: Between): FaultKind {
  const sum = kinds.reduce((total, kind) => total + kind.weight, 0);
  let at = between(1, sum);
  for (const kind of kinds) {
    at -= kind.weight;
    if (at <= 0) return kind;
  }
  throw new Error("no kind of fault is drawn");
}

async function strike(scene: Scene, kind: FaultKind, between: Between): Promise<FaultRecord> {
  const at = Date.now();
  const what = await kind.strike(scene, between);
  const over_at = Date.now();
  const { direct } = scene.cluster.store;
  const next = await until(
    () => outcomes(direct, at, over_at).catch(() => undefined),
    RECOVERY_MAX_MS,
  ).catch(() => ({ next: Infinity, silence_ms: Infinity }));
  const recovered_ms = next.next - over_at;
  const { silence_ms } = next;
  return { number: 0, kind: kind.name, what, at, over_at, recovered_ms, silence_ms };
}

/** The first accepted outcome after a moment, and the longest gap until then from before `at`. */
async function outcomes(url: string, at: number, overAt: number) {
  const [row] = await ask<{ next: number | null; silence_ms: number }>(
    url,
    `with outcome as (
       select extract(epoch from created_at) * 1000 as at from noetl.event
       where event_type in ('command.completed', 'command.failed', 'frame.committed')
         and execution_id > $3),
     last as (select coalesce(max(at), $1) as at from outcome where at <= $1),
     next as (select min(at) as at from outcome where at > $2),
     gaps as (
       select o.at - lag(o.at) over (order by o.at) as gap from outcome o, last, next
       where o.at >= last.at and o.at <= next.at)
     select (select at from next)::float8 as next,
            coalesce((select max(gap) from gaps), 0)::float8 as silence_ms`,
    [at, overAt, 0],
  );
  const next = row?.next ?? undefined;
  return next === undefined ? undefined : { next, silence_ms: row?.silence_ms ?? 0 };
}

/** Acknowledgements and the rows that people read come after the ends. */
async function settled(scene: Scene): Promise<Evidence> {
  let evidence = await gather(scene);
  for (let tries = 0; tries < 20 && findViolations(evidence).length > 0; tries += 1) {
    await pause(1_000);
    evidence = await gather(scene);
  }
  return evidence;
}

/** Items that were given up, in all executions. */
export function quarantined({ evidence }: Verdict): number {
  return quarantinedOf(evidence.log.events).length;
}
