/** What workers of a play report: outcomes, and tables of them by step. */
import type { OutcomeInput } from "../../schemas/command.ts";
import type { OutcomeResult, StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { countOf, fromRanges, toRanges } from "../../schemas/ranges.ts";

export type Reply = Pick<OutcomeInput, "result" | "ctx" | "frame" | "give_back">;
/** By step, or by `step/index` for an iteration. */
export type Answers = Record<string, Reply | ((grant: Grant) => Reply)>;

export function ok(context: Json = {}, ctx?: JsonObject): Reply {
  return { result: { status: "ok", context }, ...(ctx && { ctx }) };
}

export function failed(message = "it broke", ctx?: JsonObject): Reply {
  const error = { kind: "server_error", retryable: false, code: "HTTP_500", message };
  return { result: { status: "error", error }, ...(ctx && { ctx }) };
}

/** What a worker reports of all items that its frame has left, each answered by itself. */
export function frameReply(grant: Grant, answer: (grant: Grant) => Reply): Reply {
  const { frame, iteration } = grant;
  if (!frame || !iteration) return answer(grant);
  const done: Record<"ok" | "failed", number[]> = { ok: [], failed: [] };
  const results: Json[] = [];
  let ctx: JsonObject = {};
  let error: OutcomeResult["error"];
  for (const index of fromRanges(frame.left, 0, Infinity) ?? []) {
    const reply = answer({ ...grant, iteration: { ...iteration, index } });
    ctx = { ...ctx, ...reply.ctx };
    if (reply.result.status === "ok") {
      done.ok.push(index);
      results.push(reply.result.context ?? null);
    } else {
      done.failed.push(index);
      error ??= reply.result.error;
    }
    if (done.failed.length > frame.tolerance) break;
  }
  return {
    result: { status: "ok", context: { ok: results }, ...(error && { error }) },
    frame: { ok: toRanges(done.ok), failed: toRanges(done.failed), final: true },
    ...(Object.keys(ctx).length > 0 && { ctx }),
  };
}

export function replyOf(table: Answers, grant: Grant): Reply {
  if (grant.frame) return frameReply(grant, one => replyOf(table, { ...one, frame: undefined }));
  const entry = table[`${grant.step}/${grant.iteration?.index}`] ?? table[grant.step] ?? ok();
  return typeof entry === "function" ? entry(grant) : entry;
}

export function resultOf(event: StoredEvent | undefined): OutcomeResult {
  return event?.result as OutcomeResult;
}

/** What a worker says its work cost, when an item takes so many milliseconds. */
export function statsOf({ frame }: Reply, itemMs: number | undefined): object {
  if (itemMs === undefined) return {};
  const items = frame ? countOf(frame.ok) + countOf(frame.failed) : 1;
  return { stats: { task_runs: items, retries: 0, duration_ms: items * itemMs } };
}
