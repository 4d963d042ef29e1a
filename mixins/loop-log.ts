// The log of a loop that is over, as others read it: how it started, and what its items came to.
import { Bitmap } from "../schemas/bitmap.ts";
import { Rejected } from "../schemas/errors.ts";
import type { EventOf } from "../schemas/events.ts";
import { fromRanges } from "../schemas/ranges.ts";
import { readStream } from "./postgres/event.ts";
import { countRows, pageLoopOutcomes, type LoopOutcome } from "./postgres/loop-outcome.ts";
import type { Query } from "./postgres/index.ts";

const PAGE = 2_000;

export interface LoopName {
  execution_id: string;
  loop_id: string;
}

/** The indexes of one of a frame's sets. */
export function indexesOf({ first, count }: LoopOutcome, ranges: string | null): number[] {
  return fromRanges(ranges ?? "", first ?? 0, (first ?? 0) + (count ?? 0)) ?? [];
}

/** How a loop, or a fan-out, started. Throws Rejected 404 when its log is kept no longer. */
export async function readLoopStart(
  database: Query,
  { execution_id, loop_id }: LoopName,
): Promise<EventOf<"loop.started" | "loop.fanout.started">> {
  const [first] = await readStream(database, { execution_id, stream_id: loop_id }, 0, 1);
  const isStart = first && /^loop\.(fanout\.)?started$/.test(first.event_type);
  if (isStart) return first as EventOf<"loop.started" | "loop.fanout.started">;
  throw new Rejected(`the log of loop ${loop_id} is kept no longer`, 404);
}

/** The loops that a loop goes on with, the first one first, and itself. */
export async function familyOf(
  database: Query,
  { execution_id, loop_id }: LoopName,
): Promise<LoopName[]> {
  const family: LoopName[] = [];
  for (let next: string | undefined = loop_id; next !== undefined;) {
    family.unshift({ execution_id, loop_id: next });
    next = (await readLoopStart(database, { execution_id, loop_id: next })).meta.redrive_of;
  }
  return family;
}

/** Accepted outcomes of a loop's own iterations, in order of acceptance. */
export async function* outcomesOf(
  database: Query,
  loop: LoopName,
  only: { failed?: boolean; from?: number; to?: number } = {},
): AsyncIterable<LoopOutcome> {
  let after = 0;
  for (;;) {
    const rows = await pageLoopOutcomes(database, { ...loop, ...only, after, limit: PAGE });
    yield* rows;
    if (rows.length < PAGE) return;
    after = rows.at(-1)?.version ?? after;
  }
}

/** How a loop started, and what of it is settled: by itself, or before it. */
export async function readSettled(database: Query, loop: LoopName) {
  const start = await readLoopStart(database, loop);
  const inherited = start.context?.["inherited"] as { ok: string; failed: string } | undefined;
  const isCursor = "mode" in start.meta && start.meta.mode === "cursor";
  const size = isCursor ? await countRows(database, loop) : start.meta.collection_size;
  const empty = () => Bitmap.ofSize(size);
  const ok = inherited ? Bitmap.fromText(inherited.ok) : empty();
  const failed = inherited ? Bitmap.fromText(inherited.failed) : empty();
  for await (const row of outcomesOf(database, loop)) {
    if (row.iter_index !== null) (row.isOk ? ok : failed).add(row.iter_index);
    for (const index of indexesOf(row, row.ok)) ok.add(index);
    for (const index of indexesOf(row, row.failed)) failed.add(index);
  }
  return { ok, failed, start };
}
