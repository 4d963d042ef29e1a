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
  /** All when absent. */
  kinds?: FaultKind[];
  /** One kind after the other instead of by chance and weight. */
  isInTurn?: boolean;
  /** Nothing happens for longer, in milliseconds, after a fault that is over: it is stuck. */
  recoveryMaxMs?: number;
  /** Before the first fault. */
  prepare?(scene: Scene): Promise<void> | void;
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
  /** What somebody would look at who wonders about violations. */
  seen: string;
}

const RECOVERY_MAX_MS = 45_000;
/** Between a recovery and the next fault. */
const PAUSE_MAX_MS = 800;

export async function runNemesis(options: NemesisOptions): Promise<Verdict> {
  const { seed, faults, seconds, kinds = FAULT_KINDS } = options;
  const lifeMs = (seconds + 400) * 1_000;
  const scene = await setScene({ seed, lifeMs, ...options.scene });
  try {
    await options.prepare?.(scene);
    const between = betweenOf(seed);
    const begun = performance.now();
    const records: FaultRecord[] = [];
    const stuck: string[] = [];
    while (records.length < faults && performance.now() - begun < seconds * 1_000) {
      await pause(between(0, PAUSE_MAX_MS));
      const turn = kinds[records.length % kinds.length];
      const kind = options.isInTurn && turn ? turn : draw(kinds, between);
      const record = await strike(scene, kind, between, options.recoveryMaxMs);
      record.number = records.push(record);
      options.say?.(record);
      if (record.recovered_ms === Infinity) stuck.push(`silence: after ${nameOf(record)}`);
    }
    await scene.feeder.stop();
    const evidence = await settled(scene);
    const violations = [...stuck, ...findViolations(evidence)];
    const took = Math.round((performance.now() - begun) / 1_000);
    const { restarts } = scene.keeper;
    const seen = violations.length > 0 ? await scene.describe() : "";
    return { seed, seconds: took, records, evidence, restarts, violations, seen };
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

async function strike(
  scene: Scene,
  kind: FaultKind,
  between: Between,
  maxMs = RECOVERY_MAX_MS,
): Promise<FaultRecord> {
  const at = Date.now();
  const what = await kind.strike(scene, between);
  const over_at = Date.now();
  const { direct } = scene.cluster.store;
  const next = await until(() => outcomes(direct, at, over_at).catch(() => undefined), maxMs).catch(
    () => ({ next: Infinity, silence_ms: Infinity }),
  );
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

/** What comes after an end: acknowledgements, and the rows that people read. */
const SETTLE_MAX_MS = 15_000;

async function settled(scene: Scene): Promise<Evidence> {
  const isSettled = `select not exists (select 1 from noetl.stream where status = 'open')
    and not exists (select 1 from noetl.execution where status = 'RUNNING') as settled`;
  const look = async (): Promise<boolean> => {
    const [row] = await ask<{ settled: boolean }>(scene.cluster.store.direct, isSettled);
    return row?.settled === true;
  };
  await until(look, SETTLE_MAX_MS).catch(() => undefined);
  return gather(scene);
}

/** Items that were given up, in all executions. */
export function quarantined({ evidence }: Verdict): number {
  return quarantinedOf(evidence.log.events).length;
}
