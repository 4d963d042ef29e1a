/** What a worker and a tool say to each other: one action `tool.<kind>.run` each. */
import type { StartCaller } from "./frozen-scope.ts";
import type { Json, JsonObject } from "./json.ts";

/** Parameters of `tool.<kind>.run`. Every template in `config` is already rendered. */
export interface ToolRequest {
  /**
   * The tool's own fields (url, query, …), rendered; without kind, name, auth, input, spec, set,
   * output.
   */
  config: Record<string, unknown>;
  /** Rendered `input` of the task (step input merged under it). */
  input: Record<string, unknown>;
  /**
   * A credential alias, or an inline map; the tool resolves an alias itself through
   * `credentials.resolve`.
   */
  auth?: string | Record<string, unknown>;
  /** The loop's iterator, `_index` and `_total`, for tools that are programs. */
  iteration?: Record<string, unknown>;
  /** Every variable there is, for a program that mentions `context`. */
  context?: Record<string, unknown>;
  /** Where this runs, for logs, idempotency keys and result names. */
  command: ToolCommand;
}

export interface ToolCommand {
  execution_id: string;
  command_id: string;
  step: string;
  activation: number;
  task: string;
  attempt: number;
  delivery: number;
  /**
   * The same for every delivery and every retry of one visit of the task; another one for another
   * item, and for the next visit of a jump loop.
   */
  idempotency_key: string;
  /** Its path: names the task for limits that are its own. */
  playbook?: string;
  /** Who asked for the execution. */
  caller?: StartCaller;
}

/** Error kinds of playbook-dsl §3.1. */
export type ToolErrorKind =
  | "connection"
  | "timeout"
  | "rate_limit"
  | "auth"
  | "not_found"
  | "client_error"
  | "server_error"
  | "schema"
  | "parse"
  | "transform"
  | "db_connection"
  | "db_constraint"
  | "db_timeout"
  | "missing_reference"
  | "config"
  | "logic"
  | "cancelled"
  | "unknown";

/** Why a tool's target failed: data, never an exception. */
export interface ToolError {
  kind: ToolErrorKind;
  /**
   * true for http 429 and ≥ 500, connection errors, timeouts, connection loss, deadlock,
   * serialization.
   */
  retryable: boolean;
  /** `HTTP_503`, a SQLSTATE, or a short upper-case word. */
  code: string;
  message: string;
  status_code?: number;
  /** From `Retry-After`, in milliseconds, already capped. */
  retry_after_ms?: number;
}

/**
 * The `output` a policy rule sees (playbook-dsl §3.1), less `ref` and `meta`, which the worker
 * adds.
 */
export interface ToolEnvelope {
  status: "ok" | "error";
  data: Json;
  error: ToolError | null;
  http?: { status: number; headers: JsonObject };
  pg?: { code: string; sqlstate: string };
  /** `stdout` and `stderr`: the ends of what the code printed before it failed. */
  py?: {
    exception: string;
    message: string;
    traceback: string;
    stdout?: string;
    stderr?: string;
  };
}

/** Tool kinds that may be registered, with the ones this build cannot run named apart. */
export const KNOWN_KINDS = [
  "http",
  "postgres",
  "duckdb",
  "ducklake",
  "python",
  "workbook",
  "playbook",
  "secrets",
  "container",
  "script",
  "snowflake",
  "transfer",
  "snowflake_transfer",
  "gcs",
  "gateway",
  "nats",
  "shell",
  "artifact",
  "noop",
  "agent",
  "mcp",
  "result_fetch",
  "rhai",
  "subscription",
  "wasm",
  "action",
] as const;
export type ToolKind = (typeof KNOWN_KINDS)[number];

/** Kinds this build runs; the others are parsed, validated, and refused at registration. */
export const RUNNABLE_KINDS: readonly ToolKind[] = [
  "http",
  "postgres",
  "noop",
  "playbook",
  "action",
  "python",
  "artifact",
];
