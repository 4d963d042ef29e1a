// Waiting for the end of a run: answered by the owner of its stream, not by polling its row.
import type { ServiceBroker } from "moleculer";
import type { StreamName } from "../../mixins/event-store.ts";
import { hostsOf, isOffered, isUnreachable, rendezvous } from "../../mixins/routing.ts";
import { asRead, type ExecutionRow } from "../../mixins/postgres/execution.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ExecutionsWait } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import { generationOf } from "./machine.ts";
import { readExecution, rowOf, viewOf, type ExecutionView } from "./read.ts";
import { isLive } from "./state.ts";
import { isOver, statusWord } from "./status.ts";

/** Another node may own the stream: its head is looked at this often. */
const LOOK_MS = 500;
/** How long a row may lag behind its stream before the owner's word is given instead. */
const ROW_LAG_MS = 2_000;
const ROW_LOOK_MS = 100;
/** Another node is asked to wait so long; one that has died meanwhile does not answer. */
const ASK_MS = 2_000;
const ANSWER_MS = 500;
const ENDED_ACTION = "executions.ended";

/** Who waits: on any node, for a stream that any node may own. */
export interface Waiter {
  runtime: Runtime;
  host: ExecutionHost;
  broker: ServiceBroker;
}

/** The execution when it has ended, or as it is at the timeout. Throws Rejected 404. */
export async function waitForExecution(
  waiter: Waiter,
  request: ExecutionsWait,
): Promise<ExecutionView> {
  const { runtime } = waiter;
  const { execution_id, timeout_ms, descendants } = request;
  const until = runtime.clock.now() + timeout_ms;
  const end = await ended(waiter, execution_id, until);
  if (end && descendants) await familyEnded(runtime, execution_id, until);
  return end ? caughtUp(runtime, execution_id, end) : readExecution(runtime, execution_id);
}

/** How a run ended; `justNow` when its row has probably yet to follow. */
export interface End {
  status: string;
  generation: number;
  justNow: boolean;
}

/** For another node: the status of a run that has ended, once its row says so too. */
export async function endedHere(
  waiter: Waiter,
  { execution_id, timeout_ms }: ExecutionsWait,
): Promise<{ status?: string; generation?: number }> {
  const { runtime } = waiter;
  const end = await watched(waiter, execution_id, runtime.clock.now() + timeout_ms);
  if (!end) return {};
  await caughtUp(runtime, execution_id, end);
  return { status: end.status, generation: end.generation };
}

/** The end, or undefined when time ran out. */
async function ended(waiter: Waiter, executionId: string, until: number): Promise<End | undefined> {
  const { broker, runtime } = waiter;
  while (until > runtime.clock.now()) {
    const owner = rendezvous(executionId, hostsOf(broker, "executions"));
    if (owner === undefined || owner === broker.nodeID) break;
    if (!isOffered(broker, ENDED_ACTION, owner)) break;
    try {
      const timeout_ms = Math.ceil(Math.min(ASK_MS, until - runtime.clock.now()));
      const { status, generation = 0 } = await broker.call<
        { status?: string; generation?: number },
        object
      >(
        ENDED_ACTION,
        { execution_id: executionId, timeout_ms },
        { nodeID: owner, timeout: timeout_ms + ROW_LAG_MS + ANSWER_MS },
      );
      if (status !== undefined) return { status, generation, justNow: false };
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      break;
    }
  }
  return watched(waiter, executionId, until);
}

/** The same, seen from here: at once when this node commits it, else when its stream is read. */
async function watched(
  { runtime, host }: Waiter,
  executionId: string,
  until: number,
): Promise<End | undefined> {
  const stream = streamOf(executionId);
  let end: End | undefined;
  let wake = () => {};
  const stop = host.watch(stream, state => {
    const status = statusWord(state);
    if (!isOver(status)) return;
    end ??= { status, generation: generationOf(state), justNow: true };
    wake();
  });
  try {
    // What runs here, as far as was seen, is waited for a little before that is proved.
    for (let isSure = !runsHere(host, stream); ; isSure = true) {
      if (isSure) {
        const { status, generation } = await host.send(stream, { type: "describe" });
        if (end) return end;
        if (isOver(status)) return { status, generation, justNow: false };
      }
      const left = until - runtime.clock.now();
      if (left <= 0) return undefined;
      await new Promise<void>(resolve => {
        const cancel = runtime.clock.after(Math.min(left, LOOK_MS), resolve);
        wake = () => {
          cancel();
          resolve();
        };
        if (end) wake();
      });
      if (end) return end;
    }
  } finally {
    stop();
  }
}

function runsHere(host: ExecutionHost, stream: StreamName): boolean {
  const state = host.lastSeen(stream);
  return state !== undefined && isLive(state);
}

async function familyEnded(runtime: Runtime, executionId: string, until: number): Promise<void> {
  while (runtime.clock.now() < until) {
    const open = await runtime.rows.openDescendants(executionId, 1);
    if (open.length === 0) return;
    await runtime.clock.sleep(200);
  }
}

/** The row once it says what its owner said; the owner's word when the row lags too long. */
export async function caughtUp(
  runtime: Runtime,
  executionId: string,
  end: End,
): Promise<ExecutionView> {
  const until = runtime.clock.now() + ROW_LAG_MS;
  let written = end.justNow ? await nextWrite(runtime, executionId).written : undefined;
  for (;;) {
    const next = nextWrite(runtime, executionId);
    const row = written ?? (await rowOf(runtime, executionId));
    const isThere = says(row, end);
    if (isThere || runtime.clock.now() >= until) {
      next.cancel();
      const view = await viewOf(runtime, row);
      return isThere ? view : { ...view, status: end.status };
    }
    written = await next.written;
  }
}

function says({ state, status }: ExecutionRow, end: End): boolean {
  const generation = Number(state["generation"] ?? 0);
  if (generation !== end.generation) return generation > end.generation;
  return isOver(status) || !isOver(end.status);
}

/**
 * Resolves when this process next writes the row, with it, or soon, when another one does: then it
 * has to be read.
 */
function nextWrite(runtime: Runtime, executionId: string) {
  const { promise: written, resolve } = Promise.withResolvers<ExecutionRow | undefined>();
  const stop = runtime.shown.subscribe(rows => {
    if (!rows.has(executionId)) return;
    const row = rows.get(executionId);
    finish(row && asRead(row));
  });
  const stopTimer = runtime.clock.after(ROW_LOOK_MS, finish);
  function finish(row?: ExecutionRow): void {
    stop();
    stopTimer();
    resolve(row);
  }
  return { written, cancel: () => finish() };
}
