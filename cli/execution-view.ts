/** An execution as `executions.get` answers it, and the one object that --json prints. */
import type { Json } from "../schemas/json.ts";

export interface LoopProgress {
  loop_id?: string;
  /** Of a cursor nobody knows how many rows will come; a fan-out counts shards. */
  mode?: "cursor" | "fanout";
  /** Of a fan-out, once it is gathered: complete, partial, failed or cancelled. */
  status?: string;
  total: number;
  done: number;
  failed: number;
  in_flight?: number;
  not_run?: number;
  retries?: number;
  completed?: boolean;
  retry_budget?: number;
  retries_spent?: number;
  parked?: { code: string; next_try_at: number };
  rate_per_second?: number | null;
  eta_seconds?: number | null;
}

export interface ExecutionView {
  execution_id: string;
  path: string;
  version?: number;
  status: string;
  parent_execution_id?: string | null;
  last_event_type?: string | null;
  last_node_name?: string | null;
  start_time?: string | null;
  end_time?: string | null;
  duration_ms?: number | null;
  error?: { message?: string; step?: string } | Json;
  result?: Json;
  loop_progress?: Record<string, LoopProgress>;
  fanout_progress?: Record<string, Omit<LoopProgress, "total"> & { total_shards: number }>;
  state?: Record<string, unknown>;
}

const ENDED = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

export function hasEnded(view: { status: string }): boolean {
  return ENDED.has(view.status);
}

/** The shape of `--json` of run, exec and status; error and result only where there is one. */
export function jsonView(view: ExecutionView): Record<string, unknown> {
  const present = (value: unknown) => value !== undefined && value !== null;
  return {
    execution_id: view.execution_id,
    path: view.path,
    status: view.status,
    start_time: view.start_time ?? null,
    end_time: view.end_time ?? null,
    duration_ms: view.duration_ms ?? null,
    ...(present(view.error) && { error: view.error }),
    ...(present(view.result) && { result: view.result }),
    loop_progress: view.loop_progress ?? {},
    ...(Object.keys(view.fanout_progress ?? {}).length > 0 && {
      fanout_progress: view.fanout_progress,
    }),
  };
}

/** How far loops and fan-outs are, by step. */
export function progressOf(
  view: Pick<ExecutionView, "loop_progress" | "fanout_progress">,
): [step: string, progress: LoopProgress][] {
  const fanouts = Object.entries(view.fanout_progress ?? {});
  return [
    ...Object.entries(view.loop_progress ?? {}),
    ...fanouts.map(([step, { total_shards: total, ...fanout }]): [string, LoopProgress] => [
      step,
      { ...fanout, total, mode: "fanout" },
    ]),
  ];
}
