/** `noetl failures` and `noetl redrive`: the items that failed, and running them again. */
import { isObject } from "../schemas/json.ts";
import type { Backend } from "./backend.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { follow } from "./follow.ts";
import { readJsonMap } from "./inputs.ts";
import { print, printJson, say, table } from "./terminal.ts";

export interface FailuresOptions extends GlobalOptions {
  step?: string;
  after?: string;
  limit?: string;
}

/** As `executions.failures` answers. */
export interface Failures {
  step: string | null;
  /** Steps whose loops have failed items. */
  steps: string[];
  failures: { index: number; item?: unknown; error: Record<string, unknown> | null }[];
  next?: number;
}

/** Prints a loop's failed items. */
export async function failures(executionId: string, options: FailuresOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const { step, after, limit } = options;
    const answer = await backend.call<Failures>("executions.failures", {
      execution_id: executionId,
      ...(step !== undefined && { step }),
      ...(after !== undefined && { after }),
      ...(limit !== undefined && { limit }),
    });
    if (options.json) printJson(answer);
    else print(failureLines(executionId, answer).join("\n"));
    return EXIT.completed;
  });
}

const ITEM_MAX_CHARS = 60;
const MESSAGE_MAX_CHARS = 120;

/** A table, and what to do next. */
export function failureLines(executionId: string, answer: Failures): string[] {
  const { step, failures: found, next, steps } = answer;
  if (step === null || found.length === 0) return ["No item of a loop failed."];
  const rows = found.map(({ index, item, error }) => [
    String(index),
    shortened(item === undefined ? "(large)" : JSON.stringify(item), ITEM_MAX_CHARS),
    String(error?.["code"] ?? ""),
    shortened(String(error?.["message"] ?? "").split("\n")[0] ?? "", MESSAGE_MAX_CHARS),
  ]);
  const others = steps.filter(name => name !== step);
  return [
    `step ${step}`,
    table([["INDEX", "ITEM", "CODE", "MESSAGE"], ...rows]),
    ...(next === undefined ? [] : [`… more: --step ${step} --after ${next}`]),
    ...(others.length > 0 ? [`Items of these failed too: ${others.join(", ")}`] : []),
    `Run them again: noetl redrive ${executionId} --step ${step}`,
  ];
}

function shortened(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1)}…` : text;
}

export interface RedriveOptions extends GlobalOptions {
  step?: string;
  where?: string;
  wait?: boolean;
}

/** As `executions.redrive` answers. */
export interface Redriven {
  execution_id: string;
  generation: number;
  steps: string[];
}

/** Runs again what failed: here, to its end, or on a server. */
export async function redrive(executionId: string, options: RedriveOptions): Promise<ExitCode> {
  const where =
    options.where === undefined ? undefined : await readJsonMap(options.where, "--where");
  return withBackend(options, ["server", "worker"], async backend => {
    const answer = await askAgain(backend, executionId, { step: options.step, where });
    const json = options.json ?? false;
    const isHere = backend.serverUrl === undefined;
    say(redrivenLine(answer));
    if (isHere || options.wait) return follow(backend, executionId, { json, descendants: isHere });
    if (json) printJson(answer);
    else print(`${executionId}  see: noetl status ${executionId} --watch`);
    return EXIT.completed;
  });
}

export function askAgain(
  backend: Backend,
  executionId: string,
  { step, where }: { step?: string | undefined; where?: unknown },
): Promise<Redriven> {
  return backend.call<Redriven>("executions.redrive", {
    execution_id: executionId,
    ...(step !== undefined && { step }),
    ...(isObject(where) && { where }),
  });
}

export function redrivenLine({ execution_id, generation, steps }: Redriven): string {
  return `${execution_id}  redriven, generation ${generation}: ${steps.join(", ")}`;
}
