// What a worker says once, when it starts: every limit in effect, and where each came from.
import { describeSettings, type Settings } from "../../schemas/env.ts";
import { WORK_CLASSES } from "../../schemas/work-class.ts";
import type { Gates } from "./gate/open.ts";

/** Settings that bound what a worker takes, holds and asks for. No secret has such a name. */
const BOUNDS = /^(NOETL_(WORKER|PREFETCH|POSTGRES|COMMAND|HTTP_MAX|DB_POOL)_|NOETL_MAX_ATTEMPTS$)/;
const PLACES = /^(NATS_(STREAM|SUBJECT|CONSUMER|MAX_DELIVER)|DB_POOLER)$/;

/** By variable, `8 (default)`; and who is asked before a fetch, by class of work. */
export function startRecord(settings: Settings, gates: Pick<Gates, "of">) {
  const limits = describeSettings(settings)
    .filter(({ name, value }) => value !== "" && (BOUNDS.test(name) || PLACES.test(name)))
    .map(({ name, value, source }) => [name, `${value} (${source})`]);
  const asked = WORK_CLASSES.map(one => {
    const names = gates.of[one].watched.map(({ provider }) => provider.name);
    return [one, ["local-slots", ...names].join(" ")];
  });
  return {
    limits: Object.fromEntries(limits) as Record<string, string>,
    gate: Object.fromEntries(asked) as Record<string, string>,
  };
}
