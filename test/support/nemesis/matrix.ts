// The table "What survives what" of README.md, made from the records of a run.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../source-files.ts";
import { quarantinedOf } from "./checker.ts";
import { FAULT_KINDS } from "./faults.ts";
import type { FaultRecord, Verdict } from "./nemesis.ts";

const FILE = join(ROOT, "README.md");
const BEGIN = "<!-- nemesis: npm run nemesis -- --write -->";
const END = "<!-- /nemesis -->";

/** What lies between the marks. Throws when README.md has lost them. */
export async function readMatrix(): Promise<string> {
  const text = await readFile(FILE, "utf8");
  const [, rest] = text.split(BEGIN);
  const matrix = rest?.split(END)[0];
  if (matrix === undefined) throw new Error(`README.md has no ${BEGIN} … ${END}`);
  return matrix;
}

/** Writes it anew, from a run that met every kind of fault. */
export async function writeMatrix(verdict: Verdict): Promise<void> {
  const before = await readMatrix();
  const text = await readFile(FILE, "utf8");
  const now = `${BEGIN}\n\n${matrixOf(verdict)}\n\n${END}`;
  await writeFile(FILE, text.replace(`${BEGIN}${before}${END}`, now));
}

/** One row a family of faults: what was observed from each of them to the next one. */
export function matrixOf(verdict: Verdict): string {
  const families = Map.groupBy(FAULT_KINDS, kind => kind.family);
  const rows = [...families].map(([, kinds]) => {
    const names = kinds.map(kind => kind.name);
    return rowOf(names, verdict);
  });
  const { records, evidence, restarts, violations } = verdict;
  const minutes = Math.round(verdict.seconds / 60);
  const ends = Map.groupBy(evidence.runs, run => run.status);
  const given = rows.length === 0 ? 0 : sum(rows.map(row => row.givenUp));
  return [
    `${records.length} faults in ${minutes} minutes (seed ${verdict.seed}), ` +
      `${restarts} processes begun again, ${evidence.runs.length} executions ` +
      `(${[...ends].map(([end, list]) => `${list.length} ${end}`).join(", ")}) with ` +
      `${evidence.rows.length} items written: ${violations.length} violations, ` +
      `${given} items given up after three workers had died of them.`,
    "",
    `| ${HEAD.join(" | ")} |`,
    "| --- | ---: | ---: | ---: | ---: | ---: |",
    ...rows.map(
      ({ names, times, again, repeats, silence, givenUp }) =>
        `| ${[names, times, again, repeats, silence, givenUp].join(" | ")} |`,
    ),
  ].join("\n");
}

const HEAD = [
  ...["Fault", "Times", "Commands begun again", "Calls repeated"],
  ...["Silence, ms: median, most", "Given up"],
];

interface Row {
  names: string;
  times: number;
  /** Commands whose delivery ended without an outcome. */
  again: number;
  /** Calls of the upstream that were answered once more. */
  repeats: number;
  silence: string;
  givenUp: number;
}

function rowOf(names: string[], { records, evidence }: Verdict): Row {
  const windows = records.flatMap((record, place) =>
    names.includes(record.kind)
      ? [{ from: record.at, to: records[place + 1]?.at ?? Infinity }]
      : [],
  );
  const isIn = (ms: number): boolean => windows.some(({ from, to }) => ms >= from && ms < to);
  const events = evidence.log.events.filter(event => isIn(event.at * 1_000));
  const count = (...types: string[]) =>
    events.filter(event => types.includes(event.event_type)).length;
  const own = records.filter(record => names.includes(record.kind));
  return {
    names: names.join(", "),
    times: own.length,
    again: count("command.expired", "command.released"),
    repeats: repeatedAt(evidence.calls).filter(isIn).length,
    silence: silenceOf(own),
    givenUp: quarantinedOf(events).length,
  };
}

function silenceOf(records: FaultRecord[]): string {
  const sorted = records.map(record => record.silence_ms).sort((one, other) => one - other);
  const at = (place: number) => Math.round(sorted[place] ?? 0);
  return `${at(sorted.length >> 1)}, ${at(sorted.length - 1)}`;
}

/** When an item was answered that had been answered before. */
function repeatedAt(calls: Verdict["evidence"]["calls"]): number[] {
  const known = new Set<string>();
  return calls.flatMap(({ execution, step, item, status, at }) => {
    if (status !== 200) return [];
    const key = `${execution}/${step}/${item}`;
    if (known.has(key)) return [at];
    known.add(key);
    return [];
  });
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
