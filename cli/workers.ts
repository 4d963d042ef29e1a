/** `noetl workers`: who takes commands, and whether they live. */
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { localTime } from "./tables.ts";
import { print, printJson, table } from "./terminal.ts";

export interface WorkerRow {
  worker_id: string;
  host: string;
  status: string;
  seen_at: string;
  capacity: { slots: number; free: number; capabilities: string[]; labels: string[] } | null;
  in_flight: number | null;
  reason?: string;
}

export interface WorkersOptions extends GlobalOptions {
  limit?: string;
}

export async function workers(options: WorkersOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const { limit } = options;
    const params = limit === undefined ? {} : { limit };
    const answer = await backend.call<WorkerAnswer>("workers.list", params);
    if (options.json) printJson(answer);
    else print([workerTable(answer.workers), ...unservedLines(answer.unserved)].join("\n"));
    return EXIT.completed;
  });
}

export interface WorkerAnswer {
  workers: WorkerRow[];
  unserved: UnservedStep[];
}

interface UnservedStep {
  execution_id: string;
  step: string;
  requires: string[];
}

/** Steps that wait for a worker there is none of. */
export function unservedLines(unserved: WorkerAnswer["unserved"]): string[] {
  return unserved.map(unservedLine);
}

export function unservedLine({ execution_id, step, requires }: UnservedStep): string {
  return `nobody can run step '${step}' of ${execution_id}: it requires ${requires.join(", ")}`;
}

export function workerTable(rows: WorkerRow[]): string {
  if (rows.length === 0) return "No workers yet; start one with: noetl start";
  const lines = rows.map(({ worker_id, host, status, seen_at, capacity, in_flight }) => [
    worker_id,
    status,
    capacity ? `${in_flight} of ${capacity.slots}` : "",
    localTime(seen_at),
    host,
    [...(capacity?.capabilities ?? []), ...(capacity?.labels ?? [])].join(" "),
  ]);
  const shown = table([["WORKER", "STATUS", "BUSY", "LAST SEEN", "HOST", "OFFERS"], ...lines]);
  const unready = rows.filter(({ reason }) => reason !== undefined);
  const reasons = unready.map(({ worker_id, reason }) => `${worker_id} gets no work: ${reason}`);
  return reasons.length === 0 ? shown : [shown, "", ...reasons].join("\n");
}
