/** Failures the worker itself finds, in the shape of a tool's. */
import { errorType } from "../../schemas/errors.ts";
import type { TemplateError } from "../../schemas/playbook/template-error.ts";
import type { ToolEnvelope, ToolError } from "../../schemas/tool.ts";

/** The envelope of a task that could not run. */
export function failed(error: ToolError): ToolEnvelope {
  return { status: "error", data: null, error };
}

/** The playbook asks for something impossible. */
export function logic(code: string, message: string): ToolError {
  return { kind: "logic", retryable: false, code, message };
}

/** The task is not set up to run. */
export function configFailure(code: string, message: string): ToolError {
  return { kind: "config", retryable: false, code, message };
}

/** An expression that cannot be evaluated. */
export function templateFailure(error: TemplateError): ToolError {
  return logic("TEMPLATE", error.describe());
}

/** Whether a tier refuses a value, or it is too long to be written at all. */
export function isTooLarge(error: unknown): error is Error {
  const code = errorType(error) === "REJECTED" && (error as { code?: unknown }).code;
  return code === 413 || error instanceof RangeError;
}

/** What a step gives is larger than anything that can keep it. */
export function tooLargeFailure({ message }: Error): ToolError {
  return { kind: "logic", retryable: false, code: "RESULT_TOO_LARGE", message };
}

/** A value that an expression reads is kept no longer, or is too large to load. */
export function lostFailure(error: Error): ToolError {
  return { kind: "missing_reference", retryable: false, code: "LOST", message: error.message };
}
