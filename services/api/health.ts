/** What probes ask: is the process alive, and can it do its work. */
import { packageVersion } from "../../mixins/version.ts";
import { errorType } from "../../schemas/errors.ts";

export interface Health {
  status: "ok" | "unavailable";
  version: string;
  uptime_seconds: number;
  checks?: Record<string, string>;
}

/** A probe must answer before the kubelet gives up. */
const CHECK_TIMEOUT_MS = 2_000;

/** Live: this process runs and answers. It says nothing about the world. */
export function liveness(): Health {
  return { status: "ok", version: packageVersion(), uptime_seconds: Math.round(process.uptime()) };
}

/** Ready: the store answers a small read of the executions, through the same way as any request. */
export async function readiness(
  call: (action: string, params: object, options: { timeout: number }) => Promise<unknown>,
): Promise<Health> {
  let executions = "ok";
  try {
    await call("executions.list", { limit: 1 }, { timeout: CHECK_TIMEOUT_MS });
  } catch (error) {
    executions = errorType(error) || "INTERNAL";
  }
  const status = executions === "ok" ? "ok" : "unavailable";
  return { ...liveness(), status, checks: { executions } };
}
