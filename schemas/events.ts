/**
 * Every fact this system records, in one union (design §7). Events are rows of `noetl.event`; names
 * and fields here are columns and JSON keys for ever: add types and optional fields, never rename.
 *
 * Rows are the currency of the store, so one decision writes as few as say it all:
 * a `command.issued` with `enter` also enters its step (no `step.enter` row), with `claim_id` it is
 * also its first claim (no `command.claimed` row), and a terminal of a step's command with `next`
 * also exits it (no `step.exit` row). The events API derives those rows for readers.
 */
import { z } from "zod";
import {
  routing,
  ofStep,
  ofCommand,
  ofFrame,
  ofSlot,
  ofShard,
  ofLoop,
  digest,
  sets,
  delivery,
  claim,
  firstClaim,
  stats,
  inherited,
  generation,
  pause,
  shardEnd,
} from "./event-parts.ts";

const json = z.json();
const jsonMap = z.record(z.string(), json);

/** Where a result is kept when it is not inline: `noetl://execution/<id>/…`. */
export const resultReference = z.object({
  ref: z.string(),
  sha256: z.string().optional(),
  bytes: z.number(),
  tier: z.string(),
  /** Small scalars of the value's top level, readable without loading it. */
  extract: jsonMap.optional(),
});
export type ResultReference = z.infer<typeof resultReference>;

export const toolError = z.object({
  kind: z.string(),
  retryable: z.boolean(),
  code: z.string(),
  message: z.string(),
  status_code: z.number().optional(),
  retry_after_ms: z.number().optional(),
});

/** `result` of an outcome: data inline under 2 KB, else a reference; an error beside either. */
export const outcomeResult = z.object({
  status: z.enum(["ok", "error"]),
  context: json.optional(),
  reference: resultReference.optional(),
  error: toolError.optional(),
  /** http, pg and py parts of the last task's envelope, for guards and step-level `set`. */
  envelope: jsonMap.optional(),
});
export type OutcomeResult = z.infer<typeof outcomeResult>;

export type LoopStats = z.infer<typeof stats>;

function event<Type extends string, Meta extends z.ZodRawShape>(type: Type, meta: Meta) {
  return z.object({
    event_type: z.literal(type),
    node_name: z.string().optional(),
    meta: z.object(meta),
    context: jsonMap.optional(),
    result: z.union([outcomeResult, jsonMap]).optional(),
  });
}

function outcome<Type extends string, Meta extends z.ZodRawShape>(type: Type, meta: Meta) {
  return event(type, meta).extend({ result: outcomeResult });
}

const playbookInitialized = event("playbook.initialized", {
  path: z.string(),
  playbook_version: z.number(),
  hash: z.string(),
  parent_execution_id: z.string().optional(),
  /** Idempotency key of the start; a child's is its parent's command_id. */
  start_key: z.string().optional(),
  /** Who asked, and in which request. */
  requested_by: z.string().optional(),
  request_id: z.string().optional(),
  /** The limit of the whole run. */
  timeout_ms: z.number().optional(),
  ...generation,
}).extend({
  context: z.object({
    workload: jsonMap,
    execution_id: z.string(),
    ctx: jsonMap.optional(),
    /** What of the asker's ctx.meta goes with the execution (NOETL_META_KEYS). */
    meta: jsonMap.optional(),
  }),
});

export const eventSchema = z.discriminatedUnion("event_type", [
  playbookInitialized,
  event("step.enter", {
    ...ofStep,
    loop_id: z.string().optional(),
    /** Its loop is a fan-out. */
    loop_mode: z.literal("fanout").optional(),
  }),
  event("step.exit", {
    ...ofStep,
    loop_id: z.string().optional(),
    stats: stats.optional(),
    ...routing,
  }),
  event("step.skipped", { ...ofStep, reason: z.string() }),
  event("step.failed", { ...ofStep, ...routing }),
  event("ctx.updated", { step: z.string().optional() }),
  event("playbook.completed", generation),
  event("playbook.failed", generation),
  event("execution.cancel_requested", {
    reason: z.string().optional(),
    /** Nobody asked: the run took longer than it may, and fails. */
    timeout_ms: z.number().optional(),
    /** The key that asked over the API, or anonymous, and in which request. */
    requested_by: z.string().optional(),
    request_id: z.string().optional(),
  }),
  event("execution.cancelled", generation),
  /** Nothing more is begun from here on; `execution.paused` follows when all below knows it. */
  event("execution.pause_requested", {
    ...pause,
    /** The pause of an ancestor that this one is part of: `{execution_id}:{number}`. */
    by: z.string().optional(),
    reason: z.string().optional(),
    requested_by: z.string().optional(),
    request_id: z.string().optional(),
  }),
  /** Of a loop, as soon as it hears of it. */
  event("execution.paused", pause),
  event("execution.resumed", {
    ...pause,
    requested_by: z.string().optional(),
    request_id: z.string().optional(),
  }),
  event("execution.redriven", {
    ...generation,
    requested_by: z.string().optional(),
    request_id: z.string().optional(),
  }),
  event("command.issued", {
    ...ofCommand,
    ...ofLoop,
    ...ofShard,
    ...ofFrame,
    kind: z.string(),
    /** What the worker must offer that runs it (`schemas/needs.ts`). */
    requires: z.array(z.string()).optional(),
    enter: z.boolean().optional(),
    /** Given to a worker with it: this row is its first claim too. */
    ...firstClaim,
  }),
  event("command.claimed", { command_id: z.string(), ...claim, ...ofLoop }),
  event("command.heartbeat", { command_id: z.string(), ...delivery }),
  outcome("command.completed", { ...ofCommand, ...ofLoop, ...delivery, ...routing, ...digest }),
  outcome("command.failed", {
    ...ofCommand,
    ...ofLoop,
    ...delivery,
    ...routing,
    ...digest,
    /** Of a shard's attempt that is made again, and when (milliseconds since 1970). */
    ...ofShard,
    ...ofFrame,
    ...sets,
    retry_at: z.number().optional(),
  }),
  event("command.expired", { command_id: z.string(), ...delivery, reason: z.string(), ...ofLoop }),
  event("command.released", {
    command_id: z.string(),
    ...delivery,
    ...ofLoop,
    /** It has failed, and its loop has a budget for that: how much of it is spent, */
    spent: z.number().optional(),
    /** when the parked loop tries again, milliseconds since 1970, and what the failure was. */
    next_try_at: z.number().optional(),
    code: z.string().optional(),
  }),
  event("command.cancelled", {
    ...ofCommand,
    ...ofLoop,
    ...routing,
    /** Who held it: its work is aborted there. */
    worker_id: z.string().optional(),
  }),
  event("loop.started", {
    ...ofStep,
    loop_id: z.string(),
    collection_size: z.number(),
    mode: z.string(),
    max_in_flight: z.number(),
    /** The loop whose settled items it inherits, and how many those are. */
    redrive_of: z.string().optional(),
    inherited: inherited.optional(),
    retry_budget: z.number().optional(),
  }),
  /** One command of a parked loop may start, to see whether what it calls is there again. */
  event("loop.probed", {
    ...ofStep,
    loop_id: z.string(),
    command_id: z.string(),
    next_try_at: z.number(),
  }),
  event("loop.item", { loop_id: z.string(), iter_index: z.number() }),
  event("loop.done", {
    ...ofStep,
    loop_id: z.string(),
    collection_size: z.number(),
    stats,
    status: z.enum(["ok", "failed", "cancelled"]),
    ...digest,
  }),
  /** Items of a frame that are done; with `final` it is the terminal of its command. */
  outcome("frame.committed", {
    ...ofCommand,
    loop_id: z.string(),
    first: z.number(),
    count: z.number(),
    final: z.boolean(),
    /** Indexes as `schemas/ranges.ts` writes them. */
    ok: z.string(),
    failed: z.string(),
    ...delivery,
    ...digest,
    ...ofSlot,
    /** Of a cursor's frame, what it told as `FrameReport`: rows by number, and the rest of it. */
    rows: z.string().optional(),
    drained: z.boolean().optional(),
    broke: z.number().optional(),
  }),
  /** A cursor's frame that takes long, and has told nothing meanwhile. */
  event("frame.heartbeat", { ...ofCommand, loop_id: z.string(), ...delivery, ...ofSlot }),
  event("loop.fanout.started", {
    ...ofStep,
    loop_id: z.string(),
    total_shards: z.number(),
    collection_size: z.number(),
    /** Shards that are open, or wait to be tried again, at once. */
    max_in_flight: z.number(),
    /** Items of a shard. */
    batch: z.number(),
    /** The fan-out whose settled items it inherits; how many those are, and how many shards. */
    redrive_of: z.string().optional(),
    inherited: inherited.optional(),
    inherited_shards: z.object({ succeeded: z.number(), failed: z.number() }).optional(),
    retry_budget: z.number().optional(),
  }),
  /** Never stored: a shard's `command.issued` is its enqueue, and readers are shown this too. */
  event("loop.shard.enqueued", { loop_id: z.string(), shard_id: z.string() }),
  /** The terminal of a shard's last command: every item of it succeeded. */
  outcome("loop.shard.done", shardEnd),
  /** The same when it has failed in every attempt that it may have. */
  outcome("loop.shard.failed", shardEnd),
  event("loop.fanin.completed", {
    ...ofStep,
    loop_id: z.string(),
    status: z.enum(["complete", "partial", "failed", "cancelled"]),
    /** Shards; `done` is another name of `succeeded`. */
    total: z.number(),
    done: z.number(),
    succeeded: z.number(),
    failed: z.number(),
    collection_size: z.number(),
    /** Items. */
    stats,
    ...digest,
  }),
  event("call.partial", { command_id: z.string(), chunk_index: z.number() }),
]);

/** A fact as a machine decides it: what, about whom, and its data. */
export type NewEvent = z.infer<typeof eventSchema>;
export type EventType = NewEvent["event_type"];
export type EventOf<Type extends EventType> = Extract<NewEvent, { event_type: Type }>;

/**
 * A fact as it lies in the log. `version` counts from 1 in its stream; `at` is milliseconds since
 * 1970.
 */
export type StoredEvent = NewEvent & {
  event_id: string;
  execution_id: string;
  stream_id: string;
  version: number;
  at: number;
};

export const EVENT_TYPES: ReadonlySet<string> = new Set(
  eventSchema.options.map(option => option.shape.event_type.value),
);

/** Types that end a command (the terminal guard of the table has the same list). */
export const COMMAND_TERMINALS = [
  "command.completed",
  "command.failed",
  "command.cancelled",
  "loop.shard.done",
  "loop.shard.failed",
] as const;
/** Types that end an execution's generation. */
export const EXECUTION_TERMINALS = [
  "playbook.completed",
  "playbook.failed",
  "execution.cancelled",
] as const;

/** Limits of control rows (design §4.9): a larger value goes to a result tier. */
export const INLINE_RESULT_BYTES_MAX = 2_048;
