/** Which fields of a tool are text, which are programs, and which may not come out empty. */
import type { ToolKind } from "../tool.ts";
import type { Task } from "./model.ts";
import { missingField } from "./required-fields.ts";

/** "typed": values keep or get a type. "text": a template gives text, whatever it looks like. */
export type RenderMode = "typed" | "text";

/** Program text is never a template. */
const PROGRAMS = new Set(["code", "code_b64"]);

export function isProgram(key: string): boolean {
  return PROGRAMS.has(key);
}

const SQL = [
  ...["query", "command", "queries", "commands", "sql", "statement", "statements"],
  ...["query_b64", "command_b64", "queries_b64", "commands_b64"],
];
const FILES = ["path", "file", "file_path", "database", "db_path", "data_path", "uri"];
const SHELL = ["cmds", "cmd", "command", "cwd", "working_dir", "env"];

/** Text in every tool: aliases and addresses. */
const TEXT_EVERYWHERE = new Set(["auth", "credential", "url", "endpoint", "script"]);

const TEXT_FIELDS: Partial<Record<ToolKind, readonly string[]>> = {
  http: ["method", "headers"],
  postgres: SQL,
  duckdb: [...SQL, ...FILES],
  ducklake: [...SQL, ...FILES, "catalog_name", "catalog_connection"],
  snowflake: SQL,
  shell: SHELL,
  playbook: ["path", "catalog_id", "return_step", "result_step"],
  nats: ["operation", "bucket", "key", "name", "subject", "stream", "consumer", "pattern"],
  artifact: ["action", "uri"],
  gcs: [...FILES, "bucket", "source", "destination"],
  container: SHELL,
  action: ["action", "node"],
};

/** How a field of a tool is rendered. */
export function fieldMode(kind: ToolKind, key: string): RenderMode {
  const isText = TEXT_EVERYWHERE.has(key) || TEXT_FIELDS[kind]?.includes(key);
  return isText ? "text" : "typed";
}

/** Why a rendered task cannot run: a required field that came out empty. Undefined when it can. */
export function emptyField(task: Task, config: Record<string, unknown>): string | undefined {
  const missing = missingField(task.kind, config);
  if (missing === undefined) return undefined;
  const given = missing.find(field => task.config[field] !== undefined);
  if (given === undefined) return `${missing[0]} is missing`;
  const written = task.config[given];
  const source = typeof written === "string" ? written.trim() : JSON.stringify(written);
  const shown = source.length > 200 ? `${source.slice(0, 199)}…` : source;
  return `${given} is empty: template ${shown} gave nothing`;
}
