/** Fields without which a tool cannot run, by kind. */
import type { ToolKind } from "../tool.ts";

const SQL = [
  "query",
  "command",
  "queries",
  "commands",
  "query_b64",
  "command_b64",
  "queries_b64",
  "commands_b64",
  "script",
];

/** One of the listed fields must be given. Kinds that are not listed ask for nothing. */
const REQUIRED: Partial<Record<ToolKind, readonly string[]>> = {
  http: ["url", "endpoint"],
  postgres: SQL,
  duckdb: SQL,
  ducklake: SQL,
  snowflake: SQL,
  python: ["code", "code_b64", "script"],
  workbook: ["name", "task"],
  playbook: ["path", "catalog_id"],
  shell: ["cmds", "cmd", "command", "commands", "script"],
  nats: ["operation"],
  action: ["action"],
};

/** The fields of which `config` lacks all, or undefined when one is there and not empty. */
export function missingField(
  kind: ToolKind,
  config: Record<string, unknown>,
): readonly string[] | undefined {
  const fields = REQUIRED[kind];
  if (!fields || fields.some(field => !isEmpty(config[field]))) return undefined;
  return fields;
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  if (typeof value === "string") return value.trim() === "";
  return Array.isArray(value) && value.length === 0;
}
