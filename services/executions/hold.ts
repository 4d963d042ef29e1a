// Pausing an execution with all below it, and going on: who has its streams keeps them.
import type { ServiceBroker } from "moleculer";
import { adoptExecution } from "../../mixins/postgres/stream.ts";
import { callOwner } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { RequestedBy } from "../../schemas/caller.ts";
import { Unavailable } from "../../schemas/errors.ts";
import type { ExecutionsPause, ExecutionsResume } from "../../schemas/requests.ts";
import { eachDescendant, unlessOver } from "./control.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import type { ExecutionAnswer } from "./machine.ts";
import type { PauseStand } from "./messages.ts";
import { readExecution } from "./read.ts";

/** The parts of a process that asking needs. */
export interface Asking {
  runtime: Runtime;
  host: ExecutionHost;
  broker: ServiceBroker;
}

/** How long all below an execution may take to hear of a pause before it is told again. */
const FAMILY_MS = 5_000;
/** Usually it is some milliseconds; whoever asked for the pause is not kept waiting longer. */
const PAUSE_MS = 2_000;
const LOOK_MS = 20;

/**
 * Asks an execution to begin nothing more, and answers when it is PAUSED: its loops and children
 * know of it; or after two seconds with its status then. Throws Rejected 404 and 409.
 */
export async function pauseExecution(
  asking: Asking,
  { execution_id, reason }: ExecutionsPause,
  asked: RequestedBy,
) {
  const { host, runtime } = asking;
  const stream = streamOf(execution_id);
  const status = await keepingOwners(runtime, execution_id, async () => {
    await host.send(stream, { type: "pause", reason, asked });
    await until(asking, PAUSE_MS, async () => (await standOf(host, execution_id))?.is !== "asked");
    return (await host.send(stream, { type: "describe" })).status;
  });
  return { execution_id, status, pause_requested: true };
}

/**
 * Goes on with an execution, whatever it was stopped by: a pause ends; with `adopt` this node takes
 * over what another one has left, descendants included. Throws Rejected 404.
 */
export async function resumeExecution(
  asking: Asking,
  { execution_id, adopt }: ExecutionsResume,
  asked: RequestedBy,
) {
  const { host, runtime } = asking;
  await readExecution(runtime, execution_id);
  if (isPaused(await standOf(host, execution_id))) {
    await keepingOwners(runtime, execution_id, async () => {
      await endPause(asking, execution_id, { asked });
      const stand = await standOf(host, execution_id);
      if (stand) await resumeFamily(asking, execution_id, stand.name);
    });
  }
  const { database, nodeId } = runtime;
  const streams = adopt ? await adoptExecution(database, execution_id, nodeId) : 0;
  const { status } = await host.send(streamOf(execution_id), { type: "describe" });
  return { execution_id, status, streams };
}

/** Tells loops and children of a pause; acknowledged, and told to it, when all of them know. */
export async function pauseFamily(asking: Asking, executionId: string) {
  const { host, runtime } = asking;
  const stand = await standOf(host, executionId);
  if (stand?.is !== "asked") return { changed: false };
  const by = stand.name;
  await tellLoops(asking, stand);
  const holding = new Set<string>();
  const isWhole = await until(asking, FAMILY_MS, async () => {
    let areAll = true;
    await eachDescendant(runtime, executionId, async child => {
      if (holding.has(child)) return;
      await unlessOver(host.send(streamOf(child), { type: "pause", by }));
      if ((await standOf(host, child))?.is === "asked") areAll = false;
      else holding.add(child);
    });
    return areAll;
  });
  if (!isWhole) throw new Unavailable(`children of ${executionId} are still being paused`);
  await host.send(streamOf(executionId), { type: "family_paused", pause: stand.number });
  return { changed: true };
}

/** Ends the pauses of descendants that were part of this one. */
export async function resumeFamily(asking: Asking, executionId: string, by: string) {
  const open = await eachDescendant(asking.runtime, executionId, child =>
    unlessOver(endPause(asking, child, { by })),
  );
  return { changed: open > 0 };
}

/** Ends a pause, and answers when the loops know of it. */
export async function endPause(
  asking: Asking,
  executionId: string,
  cause: { asked?: RequestedBy; by?: string },
): Promise<void> {
  await asking.host.send(streamOf(executionId), { type: "resume", ...cause });
  const stand = await standOf(asking.host, executionId);
  if (stand?.is === "over") await tellLoops(asking, stand);
}

/** The name of the pause that an execution is in, as those below it know it. */
export function goingPause(told: ExecutionAnswer | undefined): string | undefined {
  return told && isPaused(told.pause) ? told.pause?.name : undefined;
}

function isPaused(stand: PauseStand | undefined): boolean {
  return stand !== undefined && stand.is !== "over";
}

async function standOf(host: ExecutionHost, executionId: string): Promise<PauseStand | undefined> {
  return (await host.send(streamOf(executionId), { type: "describe" })).pause;
}

async function tellLoops({ broker }: Asking, { loops }: PauseStand): Promise<void> {
  const calls = loops.map(params => {
    const { actor: service, stream_id } = params.to;
    const call = { service, action: "deliver", params, timeoutMs: FAMILY_MS };
    return callOwner(broker, stream_id, call);
  });
  await Promise.all(calls);
}

/** Looks until it is so; false when time ran out. */
async function until(
  { runtime: { clock } }: Asking,
  ms: number,
  isSo: () => Promise<boolean>,
): Promise<boolean> {
  const end = clock.now() + ms;
  for (;;) {
    if (await isSo()) return true;
    if (clock.now() >= end) return false;
    await clock.sleep(LOOK_MS);
  }
}

/**
 * Who decides last owns a stream, and wakes it. A process that only asks, such as the command line,
 * must not become the owner of what it leaves at once: it gives back what was others'.
 */
async function keepingOwners<Result>(
  { store, nodeId }: Runtime,
  executionId: string,
  work: () => Promise<Result>,
): Promise<Result> {
  const owners = await store.readOwners(executionId);
  const result = await work();
  const others = owners.filter(({ owner }) => owner !== nodeId);
  if (others.length > 0) await store.giveBack(others, nodeId);
  return result;
}
