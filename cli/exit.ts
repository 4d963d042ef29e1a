/** Exit codes, and how an error ends the command. */
import { errorType, formatIssue } from "../schemas/errors.ts";
import type { Issue } from "../schemas/errors.ts";
import { isObject } from "../schemas/json.ts";

export const EXIT = {
  completed: 0,
  /** The execution FAILED or was CANCELLED. */
  failed: 1,
  /** A playbook, a payload, an option or an id that cannot be used. */
  refused: 2,
  /** Postgres, NATS, a server or a port could not be reached or started. */
  unavailable: 3,
  /** Ctrl-C: what ran stays in the database and can be resumed. 128 + SIGINT, as shells expect. */
  interrupted: 130,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What stdout gets with --json when a command ends before there is anything to show. */
export interface ErrorReport {
  error: { type: string; code?: unknown; message: string; issues?: Issue[] };
}

const WORLD = new Set([
  "UNAVAILABLE",
  "BUSY",
  "CONFLICT",
  "REQUEST_TIMEOUT",
  "REQUEST_REJECTED",
  "SERVICE_NOT_FOUND",
  "SERVICE_NOT_AVAILABLE",
]);

/** 2 for the caller's fault, 3 for the world's, 1 for a bug of ours. */
export function exitCodeOf(error: unknown): ExitCode {
  const type = errorType(error);
  if (type === "REJECTED" || type === "VALIDATION_ERROR") return EXIT.refused;
  return WORLD.has(type) ? EXIT.unavailable : EXIT.failed;
}

/** How a finished execution ends the command. */
export function exitCodeOfStatus(status: string): ExitCode {
  return status === "FAILED" || status === "CANCELLED" ? EXIT.failed : EXIT.completed;
}

export function errorReport(error: unknown): ErrorReport {
  const known = isObject(error) ? error : {};
  const issues = issuesOf(error);
  return {
    error: {
      type: errorType(error) || "INTERNAL",
      ...(known["code"] !== undefined && { code: known["code"] }),
      message: messageOf(error),
      ...(issues.length > 0 && { issues }),
    },
  };
}

/** Lines for a person: the message, or every issue with its place; the stack only of a bug. */
export function errorLines(error: unknown): string[] {
  const issues = issuesOf(error);
  if (issues.length > 0 && !messageOf(error).includes("\n")) {
    const count = issues.length === 1 ? "1 problem" : `${issues.length} problems`;
    return [
      `${firstClause(messageOf(error))}: ${count}`,
      ...issues.map(i => `  ${formatIssue(i)}`),
    ];
  }
  const hint = hintOf(error);
  if (hint !== undefined) return [messageOf(error), `  ${hint}`];
  const bug = exitCodeOf(error) === EXIT.failed && error instanceof Error;
  return [bug ? (error.stack ?? messageOf(error)) : messageOf(error)];
}

/** `the playbook is not valid: file.yaml:3:…` → `the playbook is not valid`. */
function firstClause(message: string): string {
  return message.split(": ")[0] ?? message;
}

function messageOf(error: unknown): string {
  return isObject(error) && typeof error["message"] === "string" ? error["message"] : String(error);
}

function hintOf(error: unknown): string | undefined {
  const data = isObject(error) ? error["data"] : undefined;
  return isObject(data) && typeof data["hint"] === "string" ? data["hint"] : undefined;
}

function issuesOf(error: unknown): Issue[] {
  const data = isObject(error) ? error["data"] : undefined;
  return isObject(data) && Array.isArray(data["issues"]) ? (data["issues"] as Issue[]) : [];
}
