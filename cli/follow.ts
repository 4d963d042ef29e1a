/** Follows an execution to its end, showing it on the way; Ctrl-C leaves it, twice cancels it. */
import type { Backend } from "./backend.ts";
import { hasEnded, jsonView } from "./execution-view.ts";
import type { ExecutionView } from "./execution-view.ts";
import { EXIT, exitCodeOfStatus } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { watchSignals } from "./interruption.ts";
import type { Interruption } from "./interruption.ts";
import { openProgress, REDRAW_MS, summaryLines } from "./progress.ts";
import { NO_FACTS, tailing } from "./tail.ts";
import { openScreen, painter, print, printJson, say } from "./terminal.ts";

/** Short, because a broker that stops lets calls like this one end first. */
const WAIT_MS = 1_000;
/** A cancel is usually done within a second; longer than this nobody waits for it. */
const CANCEL_WAIT_MS = 15_000;

export interface FollowOptions {
  json: boolean;
  /** Also wait for child executions; only where they run in this process. */
  descendants: boolean;
}

/** Returns the exit code. Prints the summary, or with `json` the one object, on stdout. */
export async function follow(
  backend: Backend,
  executionId: string,
  { json, descendants }: FollowOptions,
): Promise<ExitCode> {
  const interruption = watchSignals();
  const shown = show(backend, executionId, json);
  const waiting = new AbortController();
  try {
    const ended = descendants
      ? waitForFamily(backend, executionId, waiting.signal)
      : shown.ended.then(() => readView(backend, executionId));
    // After an interruption nobody awaits it, and the broker it asks goes away.
    ended.catch(() => undefined);
    const first = await Promise.race([ended, interruption.once]);
    shown.stop();
    if (first === "interrupted") {
      waiting.abort();
      // The question in flight is answered first: a broker that stops would wait for it and
      // complain. A server's broker goes on.
      const answered = ended.then(
        () => undefined,
        () => undefined,
      );
      const settled = descendants ? answered : Promise.resolve();
      return await leave(backend, executionId, { twice: interruption.twice, settled, json });
    }
    finish(first, json);
    return exitCodeOfStatus(first.status);
  } finally {
    shown.stop();
    interruption.stop();
  }
}

/**
 * `noetl status --watch`: shows an execution until it ends or is interrupted; the execution goes on
 * by itself. Stops the interruption when it is done with it.
 */
export async function watch(
  backend: Backend,
  executionId: string,
  { json, interruption }: { json: boolean; interruption: Interruption },
): Promise<ExitCode> {
  const shown = show(backend, executionId, json);
  try {
    const first = await Promise.race([shown.ended, interruption.once]);
    shown.stop();
    if (first === "interrupted" && !json) return EXIT.interrupted;
    const view = await readView(backend, executionId);
    if (first !== "interrupted") finish(view, json);
    else printJson(jsonView(view));
    return first === "interrupted" ? EXIT.interrupted : exitCodeOfStatus(view.status);
  } finally {
    shown.stop();
    interruption.stop();
  }
}

function readView(backend: Backend, executionId: string): Promise<ExecutionView> {
  return backend.call<ExecutionView>("executions.get", { execution_id: executionId });
}

interface Shown {
  /** Resolves when the execution has ended, and never after `stop`. */
  ended: Promise<void>;
  /** Takes the live line away. Repeatable. */
  stop(): void;
}

/** Draws what is known last, at the pace of the eye, while news come at their own. */
function show(backend: Backend, executionId: string, json: boolean): Shown {
  const screen = openScreen();
  const progress = json && !screen.live ? undefined : openProgress(screen, Date.now());
  const leaving = new AbortController();
  let view: ExecutionView | undefined;
  const ticker = setInterval(() => {
    if (view) progress?.show(view, Date.now());
  }, REDRAW_MS);
  async function untilEnd(): Promise<void> {
    const options = { after: NO_FACTS, signal: leaving.signal };
    for await (const answer of tailing(backend, executionId, options)) {
      view = answer.execution;
      if (answer.ended) return;
    }
    await new Promise(() => undefined);
  }
  const ended = untilEnd();
  // Who waits for another sign of the end does not await this one.
  ended.catch(() => undefined);
  return {
    ended,
    stop() {
      if (leaving.signal.aborted) return;
      leaving.abort();
      clearInterval(ticker);
      progress?.clear();
    },
  };
}

function finish(view: ExecutionView, json: boolean): void {
  if (json) printJson(jsonView(view));
  else print(summaryLines(view, openScreen(process.stdout).colored).join("\n"));
}

/** First Ctrl-C: what runs is given time to finish, and the rest stays for `noetl resume`. */
async function leave(
  backend: Backend,
  executionId: string,
  { twice, settled, json }: { twice: Promise<"cancel">; settled: Promise<void>; json: boolean },
): Promise<ExitCode> {
  if (backend.serverUrl) say(`The execution goes on at ${backend.serverUrl}.`);
  else say("Stopping; running work is being finished. Ctrl-C again cancels the execution.");
  const drained = Promise.all([backend.drain(), settled]).then(() => "drained" as const);
  const outcome = await Promise.race([drained, twice]);
  if (outcome === "cancel") return cancelNow(backend, executionId, json);
  const view = await readView(backend, executionId);
  if (hasEnded(view)) {
    finish(view, json);
    return exitCodeOfStatus(view.status);
  }
  if (json) printJson(jsonView(view));
  const verb = backend.serverUrl ? "status" : "resume";
  const paint = painter(openScreen().colored);
  say(`To go on: ${paint(`noetl ${verb} ${executionId}`, "bold")}`);
  return EXIT.interrupted;
}

async function cancelNow(backend: Backend, executionId: string, json: boolean): Promise<ExitCode> {
  say("Cancelling.");
  const reason = "Ctrl-C twice";
  await backend.call("executions.cancel", { execution_id: executionId, reason });
  const untilMs = Date.now() + CANCEL_WAIT_MS;
  let view = await readView(backend, executionId);
  while (!hasEnded(view) && Date.now() < untilMs) {
    await pause(REDRAW_MS);
    view = await readView(backend, executionId);
  }
  finish(view, json);
  return EXIT.failed;
}

/** Also for every child; only where they run in this process, whose broker is asked in short. */
async function waitForFamily(
  backend: Backend,
  executionId: string,
  signal: AbortSignal,
): Promise<ExecutionView> {
  for (;;) {
    const startedMs = Date.now();
    const params = { execution_id: executionId, timeout_ms: WAIT_MS, descendants: true };
    const timeoutMs = WAIT_MS + 10_000;
    const view = await backend.call<ExecutionView>("executions.wait", params, { timeoutMs });
    // The wait goes on after the root's end; it is over when it answers early.
    if ((hasEnded(view) && Date.now() - startedMs < WAIT_MS) || signal.aborted) return view;
  }
}

function pause(ms: number): Promise<"paused"> {
  return new Promise(resolve => setTimeout(() => resolve("paused"), ms));
}
