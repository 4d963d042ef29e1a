// The last line of a run of tests: `N passed, N failed[, N skipped]`.
import { stripVTControlCharacters } from "node:util";

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

export function totalsLine({ passed, failed, skipped }: Totals): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

/** What the last line of an output says; undefined when it is another one. */
export function readTotals(output: string): Totals | undefined {
  const [, passed, failed, skipped] =
    /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/.exec(
      output.trimEnd().split("\n").at(-1) ?? "",
    ) ?? [];
  if (passed === undefined) return undefined;
  return { passed: Number(passed), failed: Number(failed), skipped: Number(skipped ?? 0) };
}

export function addTotals(all: Totals[]): Totals {
  return all.reduce((sum, one) => ({
    passed: sum.passed + one.passed,
    failed: sum.failed + one.failed,
    skipped: sum.skipped + one.skipped,
  }));
}

/** What mocha says of its failures after the tests, without the totals; empty when none failed. */
export function readFailures(output: string): string {
  const plain = stripVTControlCharacters(output);
  const start = /^ +\d+ failing$/m.exec(plain)?.index;
  if (start === undefined) return "";
  const text = plain.slice(start).trimEnd();
  return readTotals(text) ? text.slice(0, text.lastIndexOf("\n")).trimEnd() : text;
}
