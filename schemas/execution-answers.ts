/** What the actions of executions answer, as JSON. */
import { z } from "zod";
import { jsonObject, named, playbookPath, playbookVersion, time } from "./answer.ts";
import { EXECUTION_STATUSES, id } from "./requests.ts";

const executionStatus = z.enum(EXECUTION_STATUSES);
const loopProgress = jsonObject.describe(
  "By step, of its newest loop: loop_id, total, done, failed, in_flight, completed, " +
    "not_run (when it was cut off), mode: cursor, rate_per_second and eta_seconds (null until " +
    "they can be said); with a retry budget retry_budget, retries_spent, and while it is parked " +
    "parked: {code, next_try_at}",
);

const fanoutProgress = jsonObject.describe(
  "By step, of its newest fan-out: loop_id, total_shards, done, failed, in_flight, retries, " +
    "status (running, then complete, partial, failed or cancelled), rate_per_second, eta_seconds",
);

const listedExecution = {
  execution_id: id,
  parent_execution_id: id.nullable(),
  path: playbookPath,
  version: playbookVersion,
  status: executionStatus,
  last_event_type: z.string(),
  last_node_name: z.string().nullable().describe("The step of the newest fact that has one"),
  start_time: time,
  end_time: time.nullable(),
  duration_ms: z.int(),
  error: jsonObject.nullable().describe("Why it failed: kind, code, message, step"),
  loop_progress: loopProgress,
  fanout_progress: fanoutProgress,
};

const unfinished = named(
  "ExecutionProgress",
  z.object({
    ...listedExecution,
    state: jsonObject.describe("Counters and progress, as they are stored"),
  }),
);

export const execution = named(
  "Execution",
  unfinished.extend({
    result: z.unknown().describe("Of the last step; above 64 KB {reference} stands for it"),
  }),
);

export const executionList = named(
  "ExecutionList",
  z.object({
    executions: z.array(z.object({ ...listedExecution, result: z.unknown() })),
    next: id.optional().describe("`before` of the next page; absent on the last one"),
  }),
);

export const executionStarted = named(
  "ExecutionStarted",
  z.object({
    execution_id: id,
    status: executionStatus,
    path: playbookPath,
    version: playbookVersion,
    created: z.boolean().describe("false when the idempotency key named one that was there"),
  }),
);

export const executionStatusInShort = named(
  "ExecutionStatus",
  z.object({
    execution_id: id,
    path: playbookPath,
    status: executionStatus,
    completed: z.boolean(),
    failed: z.boolean(),
    is_cancelled: z.boolean(),
    current_step: z.string().nullable(),
    progress: loopProgress,
    fanout_progress: fanoutProgress,
  }),
);

const fact = named(
  "Event",
  z.object({
    event_id: id,
    execution_id: id,
    parent_execution_id: id.nullable(),
    stream_id: id.describe("The execution itself, or one of its loops"),
    version: z.int().describe("Place in its stream, from 1, without gaps"),
    event_type: z.string(),
    node_name: z.string().nullable().describe("Step"),
    node_id: z.string().nullable().describe("The same, for NoETL's own clients"),
    status: z.string(),
    meta: jsonObject.describe("Ids and counters"),
    context: jsonObject.describe("Inputs, by value or reference, and the command_id"),
    result: jsonObject.nullable().describe("{status, context | reference, error}"),
    created_at: z.string().describe("ISO 8601, UTC, microseconds"),
  }),
);

export const eventPage = named(
  "EventPage",
  z.object({
    execution_id: id,
    status: executionStatus,
    path: playbookPath,
    events: z.array(fact),
    pagination: z.object({
      page: z.int(),
      page_size: z.int(),
      total: z.int(),
      has_next: z.boolean(),
    }),
  }),
);

export const executionTail = named(
  "ExecutionTail",
  z.object({
    events: z.array(fact).describe("Recorded facts after `after`, one a version, without gaps"),
    version: z.int().describe("`after` of the next call"),
    seen: z.string().describe("`seen` of the next call"),
    execution: unfinished,
    ended: z.boolean().describe("The execution is over and every fact was shown"),
  }),
);

export const stepResult = named("StepResult", z.object({ found: z.boolean(), value: z.unknown() }));

export const verification = named(
  "Verification",
  z.object({
    execution_id: id,
    path: playbookPath.nullable(),
    status: executionStatus.nullable().describe("null when the execution has lost its row"),
    ok: z.boolean().describe("Every rule holds; of a running execution: so far"),
    checks: z.array(
      z.object({
        rule: z.string().describe("versions, commands, fence, items, counts, digest, row, …"),
        ok: z.boolean(),
        detail: z.string().optional().describe("Of a rule that holds: what was looked at"),
        faults: z
          .array(z.object({ subject: z.string(), detail: z.string() }))
          .describe("What breaks it, at most 20"),
      }),
    ),
    duration_ms: z.int().describe("What the proof took"),
  }),
);

export const cancelRequested = named(
  "CancelRequested",
  z.object({
    execution_id: id,
    status: executionStatus,
    cancel_requested: z.literal(true),
  }),
);

export const pauseRequested = named(
  "PauseRequested",
  z.object({
    execution_id: id,
    status: executionStatus.describe("PAUSED when all below it knows, which takes milliseconds"),
    pause_requested: z.literal(true),
  }),
);

export const resumed = named(
  "Resumed",
  z.object({
    execution_id: id,
    status: executionStatus,
    streams: z.int().describe("Open streams that were taken over"),
  }),
);

export const redriven = named(
  "Redriven",
  z.object({
    execution_id: id,
    status: executionStatus,
    generation: z.int().describe("How often it was redriven"),
    steps: z.array(z.string()).describe("Steps that run again"),
  }),
);

export const deadLetters = named(
  "DeadLetters",
  z.object({
    dead_letters: z.array(
      z.object({
        execution_id: id,
        stream_id: id.describe("The execution itself, or one of its loops"),
        event_id: id,
        command_id: z.string(),
        step: z.string(),
        activation: z.int(),
        iter_index: z.int().nullable().describe("Of a loop's item"),
        error: jsonObject,
        deaths: z.array(z.object({ worker_id: z.string(), delivery: z.int(), at: z.string() })),
        quarantined_at: z.string().describe("ISO 8601"),
      }),
    ),
    next: id.optional().describe("`before` of the next page; absent on the last one"),
  }),
);

export const failures = named(
  "Failures",
  z.object({
    execution_id: id,
    step: z.string().nullable().describe("The loop that these are of"),
    steps: z.array(z.string()).describe("Steps whose loops have failed items"),
    failures: z.array(
      z.object({
        index: z.int(),
        item: z.unknown().optional().describe("Absent when it is large"),
        error: jsonObject.nullable(),
      }),
    ),
    next: z.int().optional().describe("`after` of the next page; absent on the last one"),
  }),
);
