/** `noetl tail`: facts and progress of an execution as they come, to its end. */
import { setTimeout as pause } from "node:timers/promises";
import type { Backend } from "./backend.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { progressOf } from "./execution-view.ts";
import type { ExecutionView } from "./execution-view.ts";
import { EXIT, exitCodeOf, exitCodeOfStatus } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { watchSignals } from "./interruption.ts";
import type { Interruption } from "./interruption.ts";
import { describeProgress, summaryLines } from "./progress.ts";
import { factLine } from "./tables.ts";
import type { EventView } from "./tables.ts";
import { openScreen, painter, print, say } from "./terminal.ts";

/** How long one question waits for news; an owner that stops answers at once. */
const WAIT_MS = 20_000;
/** News of this time come together: an eye is no faster, and a busy loop is always new. */
const GATHER_MS = 200;
/** A server that restarts is waited for so long, and asked again so often. */
const AWAY_MS = 60_000;
const AGAIN_MS = 1_000;
/** Facts of one answer at most. */
const PAGE = 500;
/** Loops are mentioned this often while they go on. */
const PROGRESS_MS = 1_000;
/** No stream gets this far: whoever asks from here is told of the view only. */
export const NO_FACTS = 2_147_483_647;

/** What `executions.tail` answers. */
export interface TailAnswer {
  events: EventView[];
  version: number;
  seen: string;
  execution: ExecutionView;
  ended: boolean;
}

export interface TailOptions {
  /** Facts after this version of the execution's stream; 0 is all of them. */
  after?: number;
  signal?: AbortSignal;
}

/**
 * Answers with news, one after the other, to the one that says the run has ended; none after
 * `signal`. A server that goes away meanwhile is asked again for a minute. Throws Rejected 404.
 */
export async function* tailing(
  backend: Backend,
  executionId: string,
  { after = 0, signal }: TailOptions = {},
): AsyncGenerator<TailAnswer> {
  let known: { after: number; seen?: string } = { after };
  let lastMs: number | undefined;
  while (!signal?.aborted) {
    const params = { execution_id: executionId, ...known, timeout_ms: WAIT_MS, limit: PAGE };
    const answer = await unlessAborted(
      backend.call<TailAnswer>("executions.tail", params, { timeoutMs: WAIT_MS * 2, signal }),
      signal,
    ).catch((error: unknown) => {
      const isAway = exitCodeOf(error) === EXIT.unavailable;
      if (!isAway || lastMs === undefined || Date.now() - lastMs > AWAY_MS) throw error;
      return "away" as const;
    });
    if (answer === "aborted") return;
    if (answer === "away") {
      await rest(AGAIN_MS, signal);
      continue;
    }
    lastMs = Date.now();
    yield answer;
    if (answer.ended) return;
    known = { after: answer.version, seen: answer.seen };
    if (answer.events.length < PAGE) await rest(GATHER_MS, signal);
  }
}

/** The answer, or `aborted` as soon as nobody wants it any more. */
async function unlessAborted<T>(
  answer: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T | "aborted"> {
  if (!signal) return answer;
  const aborted = Promise.withResolvers<"aborted">();
  const onAbort = () => aborted.resolve("aborted");
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([answer, aborted.promise]);
  } catch (error) {
    if (signal.aborted) return "aborted";
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function rest(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await pause(ms, undefined, { signal }).catch(() => undefined);
}

/** Prints until the run ends, then its summary; exit code of its outcome, 130 after Ctrl-C. */
export async function tail(executionId: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], backend =>
    printTail(backend, executionId, {
      json: options.json ?? false,
      interruption: watchSignals(),
    }),
  );
}

export interface PrintOptions {
  /** One JSON object a fact on stdout, and nothing else there. */
  json: boolean;
  interruption: Interruption;
}

/** Stops the interruption when it is done with it. */
export async function printTail(
  backend: Backend,
  executionId: string,
  { json, interruption }: PrintOptions,
): Promise<ExitCode> {
  const { colored } = openScreen(process.stdout);
  const progress = json ? undefined : progressPrinter(colored);
  const leaving = new AbortController();
  void interruption.once.then(() => leaving.abort());
  try {
    for await (const answer of tailing(backend, executionId, { signal: leaving.signal })) {
      for (const event of answer.events) print(json ? JSON.stringify(event) : factLine(event));
      if (process.stdout.destroyed) return EXIT.completed;
      if (answer.ended) return await finish(backend, executionId, { json, colored });
      progress?.show(answer.execution);
    }
  } finally {
    progress?.stop();
    interruption.stop();
  }
  if (!json) say(`The execution goes on by itself; to look again: noetl tail ${executionId}`);
  return EXIT.interrupted;
}

/**
 * Prints how far loops are, when they got further: their own facts are too many to be read. What
 * comes between two lines is in the second.
 */
function progressPrinter(colored: boolean) {
  const paint = painter(colored);
  let view: ExecutionView | undefined;
  let lastLoops = "";
  const ticker = setInterval(() => {
    const loops = progressOf(view ?? {}).filter(([, loop]) => !loop.completed);
    const counts = loops.map(([step, loop]) => [step, loop.done, loop.failed, loop.in_flight]);
    const news = JSON.stringify(counts);
    if (!view || loops.length === 0 || news === lastLoops) return;
    lastLoops = news;
    print(paint(`  … ${describeProgress(view)}`, "dim"));
  }, PROGRESS_MS);
  return {
    show: (next: ExecutionView) => void (view = next),
    stop: () => clearInterval(ticker),
  };
}

async function finish(
  backend: Backend,
  executionId: string,
  { json, colored }: { json: boolean; colored: boolean },
): Promise<ExitCode> {
  // The answers of a tail leave the result out.
  const view = await backend.call<ExecutionView>("executions.get", { execution_id: executionId });
  if (!json) print(summaryLines(view, colored).join("\n"));
  return exitCodeOfStatus(view.status);
}
