// What a worker says once, when it starts: every limit in effect, and where each came from.
import { describeSettings, type Settings } from "../../schemas/env.ts";
import { WORK_CLASSES } from "../../schemas/work-class.ts";
import type { Gates } from "./gate/open.ts";

/** Settings that bound what a worker takes, holds and asks for. No secret has such a name. */
const LIMITS =
  /^(NOETL_(WORKER|PREFETCH|POSTGRES|COMMAND|HTTP_MAX|DB_POOL)_|NOETL_MAX_ATTEMPTS$|NATS_(STREAM|SUBJECT|CONSUMER|MAX_DELIVER)$|DB_POOLER$)/;

/** `limits` by variable, those that somebody has set apart from the defaults; who is asked, by class. */
export function startRecord(settings: Settings, gates: Gates) {
  const lines = describeSettings(settings).filter(line => LIMITS.test(line.name));
  const from = (source: string) =>
    Object.fromEntries(
      lines
        .filter(line => line.source === source && line.value !== "")
        .map(({ name, value }) => [name, value]),
    );
  const asked = WORK_CLASSES.map(one => [
    one,
    ["local-slots", ...gates.of[one].watched.map(({ provider }) => provider.name)].join(" "),
  ]);
  return {
    limits: { environment: from("environment"), default: from("default") },
    gate: Object.fromEntries(asked) as Record<string, string>,
  };
}
