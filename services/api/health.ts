/** What probes ask: is the process alive, and can it do its work. */
import type { CallingOptions } from "moleculer";
import { ping } from "../../mixins/postgres/database.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { packageVersion } from "../../mixins/version.ts";
import { errorType } from "../../schemas/errors.ts";

export interface Health {
  /**
   * `degraded`: work goes on, with less than was configured; `unavailable`: requests would fail.
   */
  status: "ok" | "degraded" | "unavailable";
  version: string;
  uptime_seconds: number;
  /** By what was checked: `ok`, or what is wrong. */
  checks?: Record<string, string>;
}

/** A probe must answer before the kubelet gives up. */
const CHECK_TIMEOUT_MS = 2_000;

/** Live: this process runs and answers. It says nothing about the world. */
export function liveness(): Health {
  return { status: "ok", version: packageVersion(), uptime_seconds: Math.round(process.uptime()) };
}

export interface Checked extends Partial<Pick<Runtime, "database" | "doorbell">> {
  /** Whether NATS is configured: without it there is nothing to check. */
  nats: boolean;
  /** This node, and which of the services that count here it has. */
  own: { nodeID: string; worker: boolean; executions: boolean };
  call(action: string, params: object, options: CallingOptions): Promise<unknown>;
}

/**
 * Ready: the database answers, and executions answer a small read, the way of any request. Without
 * NATS it is still ready: workers find their commands over HTTP, and that must stay open to them.
 * A worker that gets no work makes its process unready, unless that decides for others as well.
 */
export async function readiness(checked: Checked): Promise<Health> {
  const { database, doorbell, nats, own, call } = checked;
  const [stored, read, worker] = await Promise.all([
    database && outcome(inTime(ping(database))),
    outcome(call("executions.list", { limit: 1 }, { timeout: CHECK_TIMEOUT_MS })),
    own.worker ? outcome(ownWorker(checked)) : "ok",
  ]);
  const isRinging = !nats || !doorbell || doorbell.connected();
  const isServing = read === "ok" && (stored ?? "ok") === "ok";
  const isUseful = own.executions || worker === "ok";
  const isWhole = isRinging && worker === "ok";
  return {
    ...liveness(),
    status: !isServing || !isUseful ? "unavailable" : isWhole ? "ok" : "degraded",
    checks: {
      ...(stored !== undefined && { database: stored }),
      ...(nats && doorbell && { nats: isRinging ? "ok" : "UNAVAILABLE" }),
      executions: read,
      ...(own.worker && { worker }),
    },
  };
}

/** Throws why its pulls bring nothing. */
async function ownWorker({ own: { nodeID }, call }: Checked): Promise<void> {
  const info = await call("worker.info", {}, { timeout: CHECK_TIMEOUT_MS, nodeID });
  const { reason } = info as { reason?: string };
  if (reason !== undefined) throw new NoWork(reason);
}

class NoWork extends Error {}

async function outcome(check: Promise<unknown>): Promise<string> {
  try {
    await check;
    return "ok";
  } catch (error) {
    if (error instanceof NoWork) return error.message;
    return errorType(error) || "INTERNAL";
  }
}

async function inTime(check: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(Object.assign(new Error("no answer in time"), { type: "REQUEST_TIMEOUT" })),
    CHECK_TIMEOUT_MS,
  );
  try {
    await Promise.race([check, late.promise]);
  } finally {
    clearTimeout(timer);
    check.catch(() => undefined);
  }
}
