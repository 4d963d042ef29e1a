/** One finding of `noetl doctor`, and what a check that goes wrong itself is worth. */
import { errorReport } from "./exit.ts";
import { painter } from "./terminal.ts";

export type CheckState = "ok" | "warn" | "fail";

export interface Check {
  name: string;
  state: CheckState;
  /** What was found, with its numbers. */
  found: string;
  /** What to do about it; absent when all is well. */
  remedy?: string;
}

export function ok(name: string, found: string): Check {
  return { name, state: "ok", found };
}

export function warn(name: string, found: string, remedy: string): Check {
  return { name, state: "warn", found, remedy };
}

export function fail(name: string, found: string, remedy: string): Check {
  return { name, state: "fail", found, remedy };
}

/** Runs one check. What goes wrong in it is a failed check: the others still have their say. */
export async function examine(
  name: string,
  look: () => Promise<Check | Check[]> | Check | Check[],
): Promise<Check[]> {
  try {
    return [await look()].flat();
  } catch (error) {
    const { message } = errorReport(error).error;
    const [first = ""] = message.split("\n");
    return [fail(name, `this could not be checked: ${first}`, "see the message")];
  }
}

/** `fail  consumer  max_ack_pending is 1000 → start a server`, one line a check. */
export function checkLines(checks: readonly Check[], colored: boolean): string[] {
  const paint = painter(colored);
  const colors = { ok: "green", warn: "yellow", fail: "red" } as const;
  const width = Math.max(...checks.map(check => check.name.length));
  return checks.map(({ name, state, found, remedy }) => {
    const head = `${paint(state.padEnd(4), colors[state])}  ${name.padEnd(width)}  ${found}`;
    return remedy === undefined ? head : `${head} ${paint("→", "dim")} ${remedy}`;
  });
}
