/** What a run of code means to a playbook: its result, or a failure that rules understand. */
import { sanitizeText } from "../../mixins/logging/sanitize.ts";
import { cancelledFailure, ToolFailure, type FailureDetail } from "../../mixins/tool.ts";
import type { ToolEnvelope, ToolErrorKind } from "../../schemas/tool.ts";
import { describeEnding, type PythonCause, type Reply, type Run } from "./process.ts";

const MESSAGE_MAX_CHARS = 1_000;
/** An outcome's row has room for 2 KB beside its error: all of these together stay below. */
const NAME_MAX_CHARS = 100;
const EXCEPTION_MAX_CHARS = 300;
const TRACEBACK_MAX_CHARS = 900;
const PRINTED_MAX_CHARS = 150;

/** By cause: kind, whether another try may help, code. */
const FAILURES: Record<PythonCause, [ToolErrorKind, boolean, string]> = {
  exception: ["logic", false, "PYTHON_EXCEPTION"],
  syntax: ["config", false, "PYTHON_SYNTAX"],
  library: ["config", false, "PYTHON_LIBRARY"],
  result: ["transform", false, "PYTHON_RESULT"],
  memory: ["logic", false, "PYTHON_MEMORY"],
  exit: ["logic", false, "PYTHON_EXIT"],
  timeout: ["timeout", true, "PYTHON_EXCEPTION"],
  connection: ["connection", true, "PYTHON_EXCEPTION"],
};

/**
 * The envelope of a task that has a result; one without has `{stdout, stderr}`. Throws a
 * ToolFailure for any other end: a crash or a limit is the failure of this task alone.
 */
export function envelopeOf(run: Run, timeoutMs: number): ToolEnvelope {
  if (run.how === "replied") {
    const { reply, stdout, stderr } = run;
    if (reply.error) throw thrown(reply.error, run);
    const data = reply.none ? { stdout, stderr } : (reply.result ?? null);
    return { status: "ok", data, error: null };
  }
  if (run.how === "cancelled") throw cancelledFailure();
  if (run.how === "timeout") {
    const message = `not done after ${timeoutMs / 1_000} s (timeout)`;
    throw failure(["timeout", true, "TIMEOUT"], "TimeoutError", message, run);
  }
  const why =
    run.how === "garbled"
      ? "it wrote to the descriptor by which results are sent"
      : `${describeEnding(run.ending)}${hintOf(run.ending.signal)}`;
  const message = `the Python process of this task is gone: ${why}${lastWords(run.stderr)}`;
  throw failure(["unknown", false, "PYTHON_CRASHED"], "Crash", message, run);
}

function hintOf(signal: string | null): string {
  return signal === "SIGKILL" ? ", perhaps for want of memory" : "";
}

/** Of what was said before the end the reason, which Python calls fatal, or the last line. */
function lastWords(stderr: string): string {
  const fatal = /^Fatal Python error: .*$/m.exec(stderr)?.[0];
  const last = fatal ?? stderr.trim().split("\n").at(-1) ?? "";
  return last === "" ? "" : `; its last words: ${last.slice(0, PRINTED_MAX_CHARS)}`;
}

function thrown(error: NonNullable<Reply["error"]>, run: Run): ToolFailure {
  const { exception, message, line, cause } = error;
  const place = line === null ? "" : ` (line ${line} of the code)`;
  const isOurs = cause === "result" || cause === "library";
  const said = message === "" ? exception : `${exception}: ${message}`;
  const text = cause === "exit" ? `exit with ${message}` : isOurs ? message : said;
  return failure(FAILURES[cause], exception, `${text}${place}`, run, error);
}

/** What Python says may hold data: secrets in it are masked, and it is cut. */
function failure(
  [kind, retryable, code]: [ToolErrorKind, boolean, string],
  exception: string,
  message: string,
  { stdout, stderr }: Run,
  error?: NonNullable<Reply["error"]>,
): ToolFailure {
  const py: FailureDetail["py"] = {
    exception: exception.slice(0, NAME_MAX_CHARS),
    message: sanitizeText(error?.message ?? message, EXCEPTION_MAX_CHARS),
    traceback: lastOf(error?.traceback ?? "", TRACEBACK_MAX_CHARS),
    ...(stdout !== "" && { stdout: lastOf(stdout, PRINTED_MAX_CHARS) }),
    ...(stderr !== "" && { stderr: lastOf(stderr, PRINTED_MAX_CHARS) }),
  };
  const text = sanitizeText(message, MESSAGE_MAX_CHARS);
  return new ToolFailure({ kind, retryable, code, message: text }, { py });
}

function lastOf(text: string, maxChars: number): string {
  const clean = sanitizeText(text, Infinity).trimEnd();
  return clean.length <= maxChars ? clean : `…${clean.slice(1 - maxChars)}`;
}
