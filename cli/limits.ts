/** `noetl limits`: rates that hold for all workers, shown and changed while everything runs. */
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { localTime } from "./tables.ts";
import { formatDuration, print, printJson, table } from "./terminal.ts";

export interface LimitsView {
  limits: { target: string; rate: string; source: string; updated_at?: string }[];
  paused: { bucket: string; left_ms: number }[];
}

export async function listLimits(options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const answer = await backend.call<LimitsView>("limits.list", {});
    if (options.json) printJson(answer);
    else print(limitTable(answer));
    return EXIT.completed;
  });
}

export async function setLimit(
  target: string,
  rate: string,
  options: GlobalOptions & { burst?: string },
): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const { burst } = options;
    const params = { target, rate, ...(burst !== undefined && { burst }) };
    const answer = await backend.call<{ target: string; rate: string }>("limits.set", params);
    if (options.json) printJson(answer);
    else print(`${answer.target}  ${answer.rate}; all workers keep to it within seconds`);
    return EXIT.completed;
  });
}

export async function clearLimit(target: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const answer = await backend.call<{ target: string }>("limits.clear", { target });
    if (options.json) printJson(answer);
    else print(`${answer.target}  cleared`);
    return EXIT.completed;
  });
}

export function limitTable({ limits, paused }: LimitsView): string {
  const rows = limits.map(({ target, rate, source, updated_at }) => [
    target,
    rate,
    source,
    localTime(updated_at),
  ]);
  const shown =
    rows.length === 0
      ? "No limits; set one with: noetl limits set http:host:api.example.com 200/s"
      : table([["TARGET", "RATE", "SOURCE", "SINCE"], ...rows]);
  const waits = paused.map(({ bucket, left_ms }) => [bucket, formatDuration(left_ms)]);
  return waits.length === 0 ? shown : `${shown}\n\n${table([["PAUSED", "FOR"], ...waits])}`;
}
