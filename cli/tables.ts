/** Executions, playbooks and facts as rows for people. */
import { isObject } from "../schemas/json.ts";
import type { ExecutionView } from "./execution-view.ts";
import { formatDuration, table } from "./terminal.ts";

/** An event as `executions.events` and `executions.tail` give it. */
export type EventView = Record<string, unknown>;

export interface ListedPlaybook {
  path: string;
  version: number;
  created_at?: string;
}

/** An error's text beyond this is for `noetl events --json`. */
const ERROR_MAX_CHARS = 160;
/** Longer than every type of event: facts that come one by one stand below each other. */
const TYPE_WIDTH = 26;
const NODE_WIDTH = 18;
/** Facts that give a command to a worker, as far as they name one. */
const HANDED: ReadonlySet<string> = new Set(["command.claimed", "command.issued"]);

export function executionTable(views: readonly ExecutionView[]): string {
  const rows = views.map(view => [
    view.execution_id,
    view.status,
    localTime(view.start_time),
    view.duration_ms == null ? "" : formatDuration(view.duration_ms),
    view.path,
  ]);
  return table([["EXECUTION", "STATUS", "STARTED", "DURATION", "PLAYBOOK"], ...rows]);
}

export function playbookTable(playbooks: readonly ListedPlaybook[]): string {
  const rows = playbooks.map(entry => [
    entry.path,
    String(entry.version),
    localTime(entry.created_at),
  ]);
  return table([["PLAYBOOK", "VERSION", "REGISTERED"], ...rows]);
}

/** Time, type, node and what tells this fact from others of its kind. */
export function factRow(event: EventView): string[] {
  const meta = isObject(event["meta"]) ? event["meta"] : {};
  const type = textOf(event["event_type"]);
  const marks = ["iter_index", "attempt", "delivery"].flatMap(key =>
    meta[key] === undefined ? [] : [`${key}=${JSON.stringify(meta[key])}`],
  );
  if (HANDED.has(type) && meta["worker_id"]) marks.push(`to ${textOf(meta["worker_id"])}`);
  const said = [...marks, ...errorOf(event)].join(" ");
  const node = textOf(event["node_name"]);
  return [localTime(textOf(event["created_at"])), type, node, said];
}

/** The same as one line, for facts that come one by one. */
export function factLine(event: EventView): string {
  const [time = "", type = "", node = "", said = ""] = factRow(event);
  return `${time}  ${type.padEnd(TYPE_WIDTH)}${node.padEnd(NODE_WIDTH)}  ${said}`.trimEnd();
}

function errorOf({ result }: EventView): string[] {
  const error = isObject(result) ? result["error"] : undefined;
  const message = isObject(error) ? textOf(error["message"]) : "";
  if (message === "") return [];
  const [line = ""] = message.split("\n");
  return [line.length > ERROR_MAX_CHARS ? `${line.slice(0, ERROR_MAX_CHARS)}…` : line];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** `2026-11-21 23:16:29` on the reader's clock. */
export function localTime(iso: string | null | undefined): string {
  if (!iso) return "";
  const time = new Date(iso);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join("-");
  return `${day} ${time.toTimeString().slice(0, 8)}`;
}
