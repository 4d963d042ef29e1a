/** Facts that accept items of a loop: what they have in common, and the sets a report names. */
import { ofCommand, type Command, type FrameReport, type OutcomeInput } from "./command.ts";
import type { JsonObject } from "./json.ts";
import { digestOf, digestText, type Accepted } from "./loop-digest.ts";
import { fromRanges } from "./ranges.ts";

/** Indexes or row numbers, ascending. */
export type Sets = Pick<Accepted, "ok" | "failed">;

/** The sets of a report within `from` … `to - 1`, or what is wrong with them. */
export function readSets(
  report: Pick<FrameReport, "ok" | "failed">,
  from: number,
  to: number,
): { ok: number[]; failed: number[] } | "strange" | "twice" {
  const ok = fromRanges(report.ok, from, to);
  const failed = fromRanges(report.failed, from, to);
  if (!ok || !failed) return "strange";
  const both = new Set(ok);
  return failed.some(one => both.has(one)) ? "twice" : { ok, failed };
}

/** Of whose delivery, with what digest, result and costs; `kept` joins the context. */
export function acceptance(
  command: Command,
  { worker_id, result, ctx, stats }: Pick<OutcomeInput, "result" | "ctx" | "worker_id" | "stats">,
  { loop_id, sets, kept }: { loop_id: string; sets: Sets; kept?: JsonObject },
) {
  const { step, attempt, delivery } = command;
  const context: JsonObject = { ...(ctx && { ctx }), ...(stats && { stats }), ...kept };
  const digest = digestOf({ attempt, result, ...sets });
  return {
    digest,
    fact: {
      node_name: step,
      meta: {
        ...ofCommand(command),
        ...{ loop_id, delivery, worker_id, digest: digestText(digest) },
      },
      ...(Object.keys(context).length > 0 ? { context } : {}),
      result,
    },
  };
}
