/** A play of a loop over a cursor: a user's table in memory, and workers that claim from it. */
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json } from "../../schemas/json.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import { Play } from "./execution-play.ts";
import type { Reply } from "./worker-replies.ts";

/** A play whose step `work` loops over a cursor; spec, frame and cursor.options in YAML. */
export function cursorPlay(spec: string, frame = "max_rows: 4", options = ""): Play {
  return Play.of(
    `- step: work
  loop:
    iterator: row
    cursor: {kind: postgres, auth: pg, claim: "select 1", options: {${options}}}
    spec: {mode: cursor, ${spec}, frame: {${frame}}}
  tool: {kind: noop}
  next: {arcs: [{step: last, when: "{{ event.name == 'loop.done' }}"}]}
- {step: last, tool: {kind: noop}}`,
  );
}

/** A row with the name that its claim gave it. */
export interface Taken {
  key: string;
  row: number;
}

/** The user's table: what is claimed by the dead comes back, as a `reclaim_stale` would see to. */
export class Queue {
  readonly size: number;
  pending: number[];

  constructor(size: number) {
    this.size = size;
    this.pending = Array.from({ length: size }, (_, row) => row);
  }

  /** The rows of a round: claimed now, or left by the slot's last frame. */
  take({ command_id, delivery, cursor }: Grant): Taken[] {
    if (cursor?.left) {
      const known = new Set(fromRanges(cursor.told, 0, Infinity));
      const left = (cursor.left.rows ?? []) as unknown as Taken[];
      return left.filter((_, number) => !known.has(number));
    }
    const rows = this.pending.splice(0, cursor?.limits.max_rows ?? 0);
    return rows.map((row, at) => ({ key: `${command_id}/${delivery}-${at}`, row }));
  }

  giveBack(rows: Taken[]): void {
    this.pending.push(...rows.map(({ row }) => row));
  }
}

/** What a worker reports of rows by their numbers in the frame. */
export function rowsReply(
  rows: { ok?: number[]; failed?: number[] },
  more: Partial<NonNullable<Reply["frame"]>> = {},
): Reply {
  const { ok = [], failed = [] } = rows;
  const error = { kind: "server_error", retryable: false, code: "E", message: "it broke" };
  return {
    result: {
      status: "ok",
      context: { ok: ok.map(number => `r${number}`) },
      ...(failed.length > 0 && { error }),
    },
    frame: { ok: toRanges(ok), failed: toRanges(failed), final: true, ...more },
  };
}

/** A round done at once: all of its rows well, or the news that there are none. */
export function roundReply(grant: Grant, queue: Queue): Reply {
  const rows = queue.take(grant);
  const numbers = rows.map((_, number) => number);
  return rowsReply({ ok: numbers }, rows.length === 0 ? { drained: true } : {});
}

/** What a slot is left with when its frame ends early. */
export function leaving(rows: Taken[]): { left: { rows: Json[] } } {
  return { left: { rows: rows as unknown as Json[] } };
}

/** The failure of a claim. */
export function claimFailure(retryable: boolean): Reply {
  const error = { kind: "db_connection", retryable, code: "57P01", message: "gone" };
  return { result: { status: "error", error } };
}
