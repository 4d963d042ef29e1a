/** What probes ask: is the process alive, and can it do its work. */
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
  call(action: string, params: object, options: { timeout: number }): Promise<unknown>;
}

/**
 * Ready: the database answers, and executions answer a small read, the way of any request. Without
 * NATS it is still ready: workers find their commands over HTTP, and that must stay open to them.
 */
export async function readiness({ database, doorbell, nats, call }: Checked): Promise<Health> {
  const [stored, read] = await Promise.all([
    database && outcome(inTime(ping(database))),
    outcome(call("executions.list", { limit: 1 }, { timeout: CHECK_TIMEOUT_MS })),
  ]);
  const isRinging = !nats || !doorbell || doorbell.connected();
  const isServing = read === "ok" && (stored ?? "ok") === "ok";
  return {
    ...liveness(),
    status: !isServing ? "unavailable" : isRinging ? "ok" : "degraded",
    checks: {
      ...(stored !== undefined && { database: stored }),
      ...(nats && doorbell && { nats: isRinging ? "ok" : "UNAVAILABLE" }),
      executions: read,
    },
  };
}

async function outcome(check: Promise<unknown>): Promise<string> {
  try {
    await check;
    return "ok";
  } catch (error) {
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
