/** What workers of a play report: outcomes, and tables of them by step. */
import type { OutcomeInput } from "../../schemas/command.ts";
import type { OutcomeResult, StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";

export type Reply = Pick<OutcomeInput, "result" | "ctx">;
/** By step, or by `step/index` for an iteration. */
export type Answers = Record<string, Reply | ((grant: Grant) => Reply)>;

export function ok(context: Json = {}, ctx?: JsonObject): Reply {
  return { result: { status: "ok", context }, ...(ctx && { ctx }) };
}

export function failed(message = "it broke", ctx?: JsonObject): Reply {
  const error = { kind: "server_error", retryable: false, code: "HTTP_500", message };
  return { result: { status: "error", error }, ...(ctx && { ctx }) };
}

export function replyOf(table: Answers, grant: Grant): Reply {
  const entry = table[`${grant.step}/${grant.iteration?.index}`] ?? table[grant.step] ?? ok();
  return typeof entry === "function" ? entry(grant) : entry;
}

export function resultOf(event: StoredEvent | undefined): OutcomeResult {
  return event?.result as OutcomeResult;
}
