/** Which fields of a tool are text, which are programs, and which may not come out empty. */
import { isObject } from "../json.ts";
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

/** Kinds whose tool runs a program with variables of its own. */
const PROGRAM_KINDS: ReadonlySet<ToolKind> = new Set<ToolKind>(["python"]);

export function runsProgram(kind: ToolKind): boolean {
  return PROGRAM_KINDS.has(kind);
}

/**
 * Whether a task's program can see every variable: all of them are loaded and sent then, so its
 * text must mention `context`. A script file is read by the tool only, and is not given them.
 */
export function asksForContext({ kind, config }: Task): boolean {
  if (!runsProgram(kind)) return false;
  const texts = [config["code"], decoded(config["code_b64"]), inlineScript(config["script"])];
  return texts.some(text => typeof text === "string" && /\bcontext\b/.test(text));
}

function decoded(base64: unknown): string | undefined {
  return typeof base64 === "string" ? Buffer.from(base64, "base64").toString() : undefined;
}

function inlineScript(script: unknown): unknown {
  const source = isObject(script) ? script["source"] : undefined;
  return isObject(source) ? source["code"] : undefined;
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
  python: ["env"],
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
