/** Follows an execution to its end, showing it on the way; Ctrl-C leaves it, twice cancels it. */
import type { Backend } from "./backend.ts";
import { hasEnded, jsonView } from "./execution-view.ts";
import type { ExecutionView } from "./execution-view.ts";
import { EXIT, exitCodeOfStatus } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { openProgress, REDRAW_MS, summaryLines } from "./progress.ts";
import { openScreen, painter, print, printJson, say } from "./terminal.ts";

/** How often a server is asked; the line moves less, and the server has others to answer. */
const REMOTE_POLL_MS = 500;
/** Short, because a broker that stops lets calls like this one end first. */
const WAIT_MS = 1_000;
/** A cancel is usually done within a second; longer than this nobody waits for it. */
const CANCEL_WAIT_MS = 15_000;
/** One Ctrl-C reaches the launcher and this process: what comes together counts once. */
const SAME_SIGNAL_MS = 250;

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
  const screen = openScreen();
  const progress = json && !screen.live ? undefined : openProgress(screen, Date.now());
  const interruption = watchSignals();
  const waiting = new AbortController();
  const poller = pollInTurns(backend, executionId, view => progress?.show(view, Date.now()));
  try {
    const ended = waitForEnd(backend, executionId, { descendants, signal: waiting.signal });
    // After an interruption nobody awaits it, and the broker it asks goes away.
    ended.catch(() => undefined);
    const first = await Promise.race([ended, interruption.once]);
    if (first === "interrupted") {
      waiting.abort();
      poller.stop();
      progress?.clear();
      // The question in flight is answered first: a broker that stops would wait for it and
      // complain.
      const settled = ended.then(
        () => undefined,
        () => undefined,
      );
      return await leave(backend, executionId, { twice: interruption.twice, settled, json });
    }
    poller.stop();
    progress?.clear();
    finish(first, json);
    return exitCodeOfStatus(first.status);
  } finally {
    poller.stop();
    interruption.stop();
  }
}

/**
 * `noetl status --watch`: shows an execution until it ends or Ctrl-C; the execution goes on by
 * itself.
 */
export async function watch(
  backend: Backend,
  executionId: string,
  json: boolean,
): Promise<ExitCode> {
  const screen = openScreen();
  const progress = json && !screen.live ? undefined : openProgress(screen, Date.now());
  const interruption = watchSignals();
  try {
    for (;;) {
      const params = { execution_id: executionId };
      const view = await backend.call<ExecutionView>("executions.get", params);
      if (hasEnded(view)) {
        progress?.clear();
        finish(view, json);
        return exitCodeOfStatus(view.status);
      }
      progress?.show(view, Date.now());
      if ((await Promise.race([pause(REMOTE_POLL_MS), interruption.once])) !== "interrupted")
        continue;
      progress?.clear();
      if (json) printJson(jsonView(view));
      return EXIT.interrupted;
    }
  } finally {
    interruption.stop();
  }
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
  const view = await backend.call<ExecutionView>("executions.get", { execution_id: executionId });
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
  let view = await backend.call<ExecutionView>("executions.get", { execution_id: executionId });
  while (!hasEnded(view) && Date.now() < untilMs) {
    await pause(REDRAW_MS);
    view = await backend.call<ExecutionView>("executions.get", { execution_id: executionId });
  }
  finish(view, json);
  return EXIT.failed;
}

async function waitForEnd(
  backend: Backend,
  executionId: string,
  { descendants, signal }: { descendants: boolean; signal: AbortSignal },
): Promise<ExecutionView> {
  for (;;) {
    const startedMs = Date.now();
    const view = await oneWait(backend, executionId, descendants);
    // With descendants the wait goes on after the root's end; it is over when it answers early.
    const early = backend.serverUrl !== undefined || Date.now() - startedMs < WAIT_MS;
    if ((hasEnded(view) && (early || !descendants)) || signal.aborted) return view;
  }
}

async function oneWait(backend: Backend, executionId: string, descendants: boolean) {
  if (backend.serverUrl) {
    await pause(REMOTE_POLL_MS);
    return backend.call<ExecutionView>("executions.get", { execution_id: executionId });
  }
  const params = { execution_id: executionId, timeout_ms: WAIT_MS, descendants };
  return backend.call<ExecutionView>("executions.wait", params, WAIT_MS + 10_000);
}

/**
 * Asks again and again, one question at a time; a failed one is left to whoever waits for the end.
 */
function pollInTurns(backend: Backend, executionId: string, show: (view: ExecutionView) => void) {
  const everyMs = backend.serverUrl ? REMOTE_POLL_MS : REDRAW_MS;
  let stopped = false;
  async function poll(): Promise<void> {
    while (!stopped) {
      const params = { execution_id: executionId };
      const view = await backend
        .call<ExecutionView>("executions.get", params)
        .catch(() => undefined);
      if (view && !stopped) show(view);
      await pause(everyMs);
    }
  }
  void poll();
  return { stop: () => void (stopped = true) };
}

/**
 * SIGINT and SIGTERM while it is open; Node's own reaction, to end at once, is off until `stop`.
 */
function watchSignals() {
  const once = Promise.withResolvers<"interrupted">();
  const twice = Promise.withResolvers<"cancel">();
  let lastMs = 0;
  let count = 0;
  function onInterrupt() {
    const nowMs = Date.now();
    if (nowMs - lastMs < SAME_SIGNAL_MS) return;
    lastMs = nowMs;
    count += 1;
    if (count === 1) once.resolve("interrupted");
    else if (count === 2) twice.resolve("cancel");
    else process.exit(EXIT.interrupted);
  }
  function onTerminate() {
    once.resolve("interrupted");
  }
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
  return {
    once: once.promise,
    twice: twice.promise,
    stop() {
      process.off("SIGINT", onInterrupt);
      process.off("SIGTERM", onTerminate);
    },
  };
}

function pause(ms: number): Promise<"paused"> {
  return new Promise(resolve => setTimeout(() => resolve("paused"), ms));
}
