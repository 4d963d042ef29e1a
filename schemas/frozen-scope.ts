/**
 * What the templates of a step may see, cut to the names they read, as it crosses from actor to
 * worker.
 */
import type { OutcomeResult } from "./events.ts";
import type { JsonObject } from "./json.ts";

/** Which playbook an execution is pinned to. */
export interface PlaybookPin {
  path: string;
  version: number;
  hash: string;
}

export interface FrozenScope {
  execution: { id: string; path: string; parent_id?: string };
  workload: JsonObject;
  ctx: JsonObject;
  /** Results by step name, inline or by reference. */
  steps: Record<string, OutcomeResult>;
  /** Name of the step whose arc led here: `{{ result }}` is its result. */
  upstream?: string;
}

/** What a worker is given with a granted claim. */
export interface Grant {
  command_id: string;
  execution_id: string;
  stream_id: string;
  step: string;
  activation: number;
  attempt: number;
  delivery: number;
  playbook: PlaybookPin;
  scope: FrozenScope;
  iteration?: { iterator: string; value: unknown; index: number; total: number; loop_id: string };
}
