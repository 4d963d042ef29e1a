// What was struck by what: faults down, kinds of steps across.
import { STEP_KINDS } from "./stories.ts";

/** A table of `fault|kind` counts; kinds of the playbook's steps, and `-` outside of any. */
export function coverageOf(struck: ReadonlyMap<string, number>): string {
  const kinds = ["-", ...STEP_KINDS];
  const faults = [...new Set([...struck.keys()].map(name => name.split("|")[0] ?? ""))].sort();
  const width = Math.max(...faults.map(name => name.length), 5);
  const line = (name: string, cells: string[]) =>
    [name.padEnd(width), ...cells.map(cell => cell.padStart(11))].join(" ");
  return [
    line("fault", kinds),
    ...faults.map(fault =>
      line(
        fault,
        kinds.map(kind => String(struck.get(`${fault}|${kind}`) ?? 0)),
      ),
    ),
  ].join("\n");
}
