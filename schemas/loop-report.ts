/** What a loop tells its execution when it is over, repeated until the execution says it knows. */
import type { LoopStats, OutcomeResult } from "./events.ts";
import type { JsonObject } from "./json.ts";

export interface LoopReport {
  type: "loop_done";
  loop_id: string;
  step: string;
  activation: number;
  status: "ok" | "failed" | "cancelled";
  stats: LoopStats;
  /** Ctx writes of the iterations, in order of acceptance. */
  ctx: JsonObject;
  /** Of a cursor loop: rows that a rule ended early, and frames that had rows. */
  cursor?: { broke: number; frames: number };
  /** Of a fan-out: how its shards ended. */
  fanin?: FaninReport;
  error?: OutcomeResult["error"];
}

/** What guards and templates see as `fanin`, less its `refs`. Counts are of shards. */
export interface FaninReport {
  status: "complete" | "partial" | "failed" | "cancelled";
  total: number;
  /** Another name of `succeeded`. */
  done: number;
  succeeded: number;
  failed: number;
}
