// The words for where an execution stands, the same everywhere (design §2).
import { isLive, type ExecutionState } from "./state.ts";

/** What is only requested is not said yet: neither a pause nor a cancel. */
export function statusWord(state: ExecutionState): string {
  if (state.status === "none") return "RUNNING";
  if (isLive(state)) return state.pause?.whole ? "PAUSED" : "RUNNING";
  return state.status.toUpperCase();
}

const OVER: ReadonlySet<string> = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

/** The run has ended. */
export function isOver(status: string): boolean {
  return OVER.has(status);
}
