// What must be true of a world in which nothing is left to do (design §4).
import { isDeepStrictEqual } from "node:util";
import { fromRanges } from "../../schemas/ranges.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { rebuildRow } from "../../services/projection/projector.ts";
import { findFaults, type Log, type LogRow } from "../support/log-checker.ts";
import { begunInPause } from "./checks-pause.ts";
import type { Client, Run } from "./client.ts";
import type { World } from "./world.ts";

/** Everybody has what was asked for, every stream has ended, and every row says so. */
export function isQuiet(world: World, client: Client): boolean {
  if (!client.isDone) return false;
  for (const row of world.tables.streams.values()) if (row.status === "open") return false;
  return [...world.tables.executions.keys()].every(id => staleRow(world, id) === undefined);
}

/** Every rule that is broken, as a sentence. */
export async function findBroken(world: World, client: Client): Promise<string[]> {
  await Promise.resolve();
  const log = logOf(world);
  const stale = [...world.tables.executions.keys()].flatMap(id => staleRow(world, id) ?? []);
  return [
    ...world.witness.faults,
    ...world.tools.faults,
    ...findFaults(log),
    ...stale,
    ...[...world.tables.setBack].map(id => `the row of ${id} went back`),
    ...twins(world),
    ...redrivenTwice(world),
    ...untrue(world),
    ...begunInPause(world),
    ...client.runs.flatMap(run => unexpected(world, run)),
  ];
}

function logOf({ tables }: World): Log {
  return {
    events: [...tables.events.values()].flat().map(event => ({
      ...{ execution_id: event.execution_id, stream_id: event.stream_id, version: event.version },
      ...{ event_id: event.event_id, event_type: event.event_type, at: event.at / 1_000 },
      meta: event.meta,
      code: (event.result as { error?: { code?: string } } | undefined)?.error?.code ?? null,
    })),
    heads: [...tables.streams.values()].map(row => ({ ...row, has_wake: row.wake_at !== null })),
    rows: [...tables.executions.values()].map(row => ({
      ...{ execution_id: row.execution_id, status: row.status },
      parent_execution_id: row.parent_execution_id ?? null,
      loop: (row.state["loop"] ?? null) as LogRow["loop"],
      fanout: (row.state["fanout"] ?? null) as LogRow["fanout"],
    })),
  };
}

/** The row is the fold of the log. */
function staleRow({ tables }: World, executionId: string): string | undefined {
  const events = [...tables.events.values()]
    .filter(([first]) => first?.execution_id === executionId)
    .flat();
  const row = tables.executions.get(executionId);
  const folded = rebuildRow(events);
  const same = isDeepStrictEqual(plain(row), plain(folded));
  return same ? undefined : `the row of ${executionId} is not the fold of its log`;
}

/** Marks of pace depend on when a row was written: they are no facts. */
function plain(row: unknown): unknown {
  return JSON.parse(JSON.stringify(row ?? null));
}

/** One execution a key: one child a visit, one run a wish. */
function twins({ tables }: World): string[] {
  const keys = [...tables.events.values()].flatMap(([first]) =>
    first?.event_type === "playbook.initialized" ? (first.meta.start_key ?? []) : [],
  );
  return keys
    .filter((key, at) => keys.indexOf(key) !== at)
    .map(key => `two executions have the key ${key}`);
}

/** The client asks for it once, however often the request is sent. */
function redrivenTwice({ tables }: World): string[] {
  const redriven = tables.log.filter(({ event }) => event.event_type === "execution.redriven");
  const ids = redriven.map(({ event }) => event.execution_id);
  return ids.filter((id, at) => ids.indexOf(id) !== at).map(id => `${id} is redriven twice`);
}

/** What the log accepted is what the tools did, in that very delivery. */
function untrue(world: World): string[] {
  const { tables, tools } = world;
  const faults: string[] = [];
  for (const { event } of tables.log) {
    const step = world.storyOf(event.execution_id)?.steps.find(one => one.name === event.node_name);
    if (step?.kind === "child") continue;
    for (const [place, status] of accepted(event)) {
      const { command_id, delivery } = event.meta as { command_id: string; delivery: number };
      const ran = tools.runs.get(`${command_id}/${delivery}/${place}`);
      if (ran !== status) faults.push(`${command_id} ${place}: ${status}, the tool said ${ran}`);
    }
  }
  return faults;
}

type Accepted = Iterable<[number, "ok" | "error"]>;

function* accepted(event: StoredEvent): Accepted {
  switch (event.event_type) {
    case "frame.committed":
      if (event.meta.slot === undefined) yield* named(event.meta);
      return;
    case "command.completed":
    case "command.failed":
    case "loop.shard.done":
    case "loop.shard.failed": {
      const { meta, event_type } = event;
      if (codeOf(event) === "WORKER_LOST" || ("slot" in meta && meta.slot !== undefined)) return;
      // A shard of several items names those that succeeded, and those that did not.
      if ("ok" in meta && meta.ok !== undefined) return yield* named(meta);
      const isOk = event_type === "command.completed" || event_type === "loop.shard.done";
      yield [meta.iter_index ?? 0, isOk ? "ok" : "error"];
      return;
    }
    default:
  }
}

function* named(sets: { ok?: string | undefined; failed?: string | undefined }): Accepted {
  for (const index of fromRanges(sets.ok ?? "", 0, Infinity) ?? []) yield [index, "ok"];
  for (const index of fromRanges(sets.failed ?? "", 0, Infinity) ?? []) yield [index, "error"];
}

/** The run came to what its story says, where nothing else may have decided it. */
function unexpected({ tables }: World, run: Run): string[] {
  const { story, executionId, wasCancelled, wasRedriven } = run;
  if (executionId === undefined) return [`${story.path} was never started`];
  const events = tables.log.filter(({ event }) => event.execution_id === executionId);
  const isLost = tables.log.some(({ event }) => codeOf(event) === "WORKER_LOST");
  if (wasCancelled || wasRedriven || isLost || !story.expected) return [];
  const status = tables.executions.get(executionId)?.status;
  const faults =
    status === story.expected ? [] : [`${story.path} ended ${status}, not ${story.expected}`];
  const entered = Object.groupBy(events.map(({ event }) => event).filter(isEntry), nodeOf);
  for (const [step, count] of Object.entries(story.entered ?? {})) {
    const found = entered[step]?.length ?? 0;
    if (found !== count) faults.push(`${story.path}: ${step} is entered ${found} times`);
  }
  return faults;
}

const nodeOf = (event: StoredEvent) => event.node_name ?? "";

function isEntry(event: StoredEvent): boolean {
  if (event.event_type === "step.enter") return true;
  return event.event_type === "command.issued" && event.meta.enter === true;
}

function codeOf(event: StoredEvent): string | undefined {
  return (event.result as { error?: { code?: string } } | undefined)?.error?.code;
}
