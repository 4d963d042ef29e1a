// What the deaths of workers may have cost: the log says what they had told.
import { fromRanges } from "../../schemas/ranges.ts";
import type { LogEvent } from "./log-checker.ts";

/** Items that dead workers had claimed and not told of: only these may have been done again. */
export function untoldItems(events: LogEvent[]): number {
  const left = new Map<unknown, number>();
  let untold = 0;
  for (const { event_type, meta } of events) {
    const items = left.get(meta["command_id"]) ?? 0;
    if (event_type === "command.issued") left.set(meta["command_id"], Number(meta["count"] ?? 1));
    if (event_type === "frame.committed") {
      // A frame of a cursor is issued without its rows: it may tell of more.
      left.set(meta["command_id"], Math.max(0, items - toldBy(meta)));
    }
    if (event_type === "command.expired") untold += items;
  }
  return untold;
}

function toldBy(meta: LogEvent["meta"]): number {
  const first = Number(meta["first"]);
  const end = first + Number(meta["count"]);
  const told = [meta["ok"], meta["failed"]].map(text => fromRanges(String(text), first, end));
  return told.reduce((sum, indexes) => sum + (indexes?.length ?? 0), 0);
}
