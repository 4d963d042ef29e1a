// What is left when a nemesis is done: the log, the user's rows, the upstream's calls, and whatever
// has a secret in it.
import { fromRanges } from "../../../schemas/ranges.ts";
import { ask } from "../actors.ts";
import { provenFaults, readLog, type Log, type LogEvent } from "../log-checker.ts";
import type { Run } from "./feeder.ts";
import type { Scene } from "./scene.ts";
import type { Call } from "./upstream.ts";

export interface EffectRow {
  execution_id: string;
  step: string;
  item: string;
  value: string;
  times: number;
}

/** What a playbook itself saw of a loop's counts. */
export interface ToldRow {
  execution_id: string;
  step: string;
  counts: Record<string, number>;
}

export interface Evidence {
  runs: Run[];
  log: Log;
  /** Rules that noetl.verify_execution found broken. */
  proven: string[];
  rows: EffectRow[];
  told: ToldRow[];
  calls: Call[];
  /** Places that have a secret in them. */
  leaks: string[];
}

export async function gather(scene: Scene): Promise<Evidence> {
  const { cluster, feeder, upstream } = scene;
  const store = cluster.store.direct;
  const target = cluster.target.direct;
  const log = await readLog(store);
  return {
    runs: withEnds(feeder.runs, log),
    log,
    proven: await provenFaults(store),
    rows: await ask<EffectRow>(target, "select * from effect"),
    told: await ask<ToldRow>(target, "select * from told"),
    calls: upstream.calls,
    leaks: await findLeaks(scene),
  };
}

/** Whom nobody waited for any longer may have ended since. */
export function withEnds(runs: Run[], { rows }: Log): Run[] {
  const statuses = new Map(rows.map(row => [row.execution_id, row.status]));
  return runs.map(run => ({ ...run, status: statuses.get(run.id) ?? "RUNNING" }));
}

/** Looks for the secrets in every table of the runtime, in what was said, and on NATS. */
async function findLeaks({ cluster, keeper, wires, secrets }: Scene): Promise<string[]> {
  const store = cluster.store.direct;
  const tables = await ask<{ name: string }>(
    store,
    `select format('%I.%I', schemaname, tablename) as name from pg_tables
     where schemaname = 'noetl'`,
  );
  const leaks = wires.overheard.map(subject => `NATS: ${subject}`);
  for (const { name } of tables) {
    const text = `select count(*)::integer as n from ${name} t, unnest($1::text[]) s
                  where position(s in t::text) > 0`;
    const [row] = await ask<{ n: number }>(store, text, [secrets]);
    if (row && row.n > 0) leaks.push(`${row.n} rows of ${name}`);
  }
  for (const { name, said } of keeper.members) {
    if (secrets.some(secret => said.includes(secret))) leaks.push(`the log of ${name}`);
  }
  return leaks;
}

/** What one step of an execution has accepted. */
export interface Accepted {
  ok: Set<number>;
  /** Items that failed, with the code of those that were commands of their own. */
  failed: Map<number, string | null>;
}

/** Accepted items by step; a step without a loop has the item 0. */
export function acceptedOf(events: LogEvent[]): Map<string, Accepted> {
  const steps = new Map<string, Accepted>();
  const of = ({ meta }: LogEvent): Accepted => {
    const name = stepOf(meta["command_id"]);
    const known = steps.get(name);
    if (known) return known;
    const fresh: Accepted = { ok: new Set(), failed: new Map() };
    steps.set(name, fresh);
    return fresh;
  };
  for (const event of events) {
    const { event_type: type, meta } = event;
    if (type === "frame.committed") {
      const first = Number(meta["first"]);
      for (const index of indexes(meta["ok"], meta, first)) of(event).ok.add(index);
      for (const index of indexes(meta["failed"], meta, first)) of(event).failed.set(index, null);
    }
    const index = Number(meta["iter_index"] ?? 0);
    const isCursor = meta["slot"] !== undefined;
    if (type === "command.completed" && !isCursor) of(event).ok.add(index);
    if (type === "command.failed" && !isCursor) of(event).failed.set(index, event.code);
  }
  return steps;
}

/** Indexes of a frame; rows of a cursor are numbered from the first that their report accepts. */
function indexes(set: unknown, meta: LogEvent["meta"], first: number): number[] {
  if (meta["slot"] === undefined) {
    return fromRanges(String(set), first, first + Number(meta["count"])) ?? [];
  }
  const rows = fromRanges(String(set), 0, Infinity) ?? [];
  return rows.map(row => first * CURSOR_SPREAD + row);
}

/** Rows of different frames have different numbers: only how many they are is of interest. */
const CURSOR_SPREAD = 1_000;

/** `{execution}:{step}:{activation}…` */
export function stepOf(commandId: unknown): string {
  return decodeURIComponent(String(commandId).split(":")[1] ?? "");
}
