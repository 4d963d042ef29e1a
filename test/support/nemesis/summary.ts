// What a nemesis came to, for people.
import { quarantined, type FaultRecord, type Verdict } from "./nemesis.ts";

const VIOLATIONS_SHOWN = 40;

export function lineOf({ number, kind, what, recovered_ms, silence_ms }: FaultRecord): string {
  const times = `silence ${Math.round(silence_ms)} ms, next outcome ${Math.round(recovered_ms)} ms`;
  return `${String(number).padStart(4)}  ${kind}: ${what}; ${times}`;
}

/** Faults by kind with their rates, what ran under them, and what is wrong. */
export function summaryOf(verdict: Verdict): string {
  const { seed, seconds, records, restarts, violations, evidence } = verdict;
  const rate = (count: number) => `${((count * 60) / Math.max(1, seconds)).toFixed(1)}/min`;
  const kinds = [...Map.groupBy(records, record => record.kind)].sort(([one], [other]) =>
    one < other ? -1 : 1,
  );
  const ends = Map.groupBy(evidence.runs, run => run.status ?? "RUNNING");
  const ended = [...ends].map(([end, list]) => `${list.length} ${end}`).join(", ");
  const count = (type: string) =>
    evidence.log.events.filter(event => event.event_type === type).length;
  const items = evidence.rows.length;
  return [
    `${records.length} faults in ${seconds} s (${rate(records.length)}), seed ${seed}:`,
    ...kinds.map(([kind, list]) => {
      const silences = list.map(record => record.silence_ms).sort((one, other) => one - other);
      const [median = 0, most = 0] = [silences[silences.length >> 1], silences.at(-1)];
      const times = `silence ${Math.round(median)} ms, at most ${Math.round(most)} ms`;
      const many = String(list.length).padStart(4);
      return `  ${kind.padEnd(38)} ${many}  ${rate(list.length)}  ${times}`;
    }),
    `${evidence.runs.length} executions: ${ended}`,
    `${items} effects, ${evidence.calls.length} calls; ${count("command.issued")} commands, ` +
      `${count("command.expired")} expired, ${count("command.released")} given back, ` +
      `${quarantined(verdict)} given up after their workers died; ${restarts} restarts`,
    `${violations.length} violations`,
    ...violations.slice(0, VIOLATIONS_SHOWN).map(violation => `  ${violation}`),
    ...(violations.length > 0
      ? [`again: npm run nemesis -- --faults ${records.length} --seed ${seed}`]
      : []),
  ].join("\n");
}
