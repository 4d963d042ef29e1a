/**
 * What nodes ask at the doors of actors: claims, outcomes, releases, messages and wake-ups. Fields
 * that are not named here are dropped, not refused: a newer node may send more than an older one
 * knows. Values that are only carried are not looked into: mailboxes bound their depth and size.
 */
import { z } from "zod";
import type { ClaimInput, OutcomeInput, ReleaseInput } from "./command.ts";
import { ACTOR_KINDS, type ActorKind } from "./decider.ts";
import { outcomeResult, resultReference, toolError, type StoredEvent } from "./events.ts";
import { frameReport } from "./frame-report.ts";
import type { FrozenScope, Grant } from "./frozen-scope.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import type { LoopReport } from "./loop-report.ts";
import { OFFERS_MAX } from "./needs.ts";
import { checked, id } from "./requests.ts";
import { WORK_CLASSES } from "./work-class.ts";

/** Entries of one batch, and commands of one question to a worker. */
export const BATCH_MAX = 1_000;
const NAME_CHARS_MAX = 256;
/** The guard that indexes command ids takes no longer ones. */
const COMMAND_ID_CHARS_MAX = 2_000;
const REASON_CHARS_MAX = 2_000;

const text = (expected: string, max: number) =>
  z
    .string({ error: expected })
    .min(1, expected)
    .max(max, `${expected}, of at most ${max} characters`);
const name = text("a name", NAME_CHARS_MAX);
const count = z.int({ error: "a whole number, 0 or more" }).min(0, "a whole number, 0 or more");
const number = z.number({ error: "a number" });
const object = z.custom<JsonObject>(isObject, "a JSON object");
const json = z.custom<Json>();

const command_id = text("a command_id", COMMAND_ID_CHARS_MAX);
const ofStream = { execution_id: id, stream_id: id };

/** A field of an input that is missing in its shape would be dropped at the door. */
type Fields<Input> = Record<Exclude<keyof Input, "type">, z.ZodType>;

const claimant = { worker_id: name, incarnation: name, claim_id: name } satisfies Fields<
  Omit<ClaimInput, "command_id">
>;
export const claimEntry = z.object({ ...ofStream, command_id });

const result = outcomeResult.extend({
  context: json.optional(),
  reference: resultReference.extend({ extract: object.optional() }).optional(),
  envelope: object.optional(),
});
const outcome = {
  command_id,
  delivery: count,
  worker_id: name,
  result,
  ctx: object.optional(),
  stats: z.object({ task_runs: number, retries: number, duration_ms: number }).optional(),
  frame: z.object(frameReport(json)).optional(),
  give_back: z.object({ error: toolError, index: count.optional() }).optional(),
  next: z
    .object({
      ...claimant,
      only: z.enum(WORK_CLASSES).optional(),
      offers: z.array(name).max(OFFERS_MAX).optional(),
    })
    .optional(),
} satisfies Fields<OutcomeInput>;
export const outcomeEntry = z.object({ ...ofStream, ...outcome });

const release = { command_id, delivery: count, worker_id: name } satisfies Fields<ReleaseInput>;
export const releaseEntry = z.object({ ...ofStream, ...release });

export const wakeEntry = z.object(ofStream);

/** Entries are checked one by one: a bad one must not spoil its neighbours. */
const entries = z
  .array(z.unknown(), { error: "a list" })
  .max(BATCH_MAX, `a list of at most ${BATCH_MAX} entries`);
export const claimBatch = z.object({ ...claimant, claims: entries });
export const reportBatch = z.object({ outcomes: entries });
export const releaseBatch = z.object({ releases: entries });
export const wakeBatch = z.object({ streams: entries });

const command_ids = z
  .array(command_id, { error: "a list of command ids" })
  .max(BATCH_MAX, `a list of at most ${BATCH_MAX} command ids`);
export const workerHolds = z.object({ incarnation: name, command_ids });
export const workerAbort = z.object({ command_ids });

/** Commands that are a worker's own unasked, with their claims; `at`: when they were sent. */
export const workerTake = z.object({
  actor: z.enum(ACTOR_KINDS),
  incarnation: name,
  at: number,
  given: z
    .array(z.object({ claim_id: name, grant: z.custom<Grant>(isGrant, "a grant") }))
    .max(BATCH_MAX, `a list of at most ${BATCH_MAX} commands`),
});
export type WorkerTake = z.output<typeof workerTake>;
export type Given = WorkerTake["given"][number];

/** Facts that another node has committed, for the row they belong to. */
export const projectionHint = z.object({
  events: z
    .array(z.custom<StoredEvent>(isStored, "a stored event"), { error: "a list of events" })
    .max(BATCH_MAX, `a list of at most ${BATCH_MAX} events`),
});

const address = <Kind extends ActorKind>(actor: Kind) =>
  z.object({ actor: z.literal(actor, { error: `'${actor}'` }), ...ofStream });

const ofStep = { step: text("the name of a step", COMMAND_ID_CHARS_MAX), activation: count };

const scope = z.custom<FrozenScope>(isScope, "the scope of a step");
const loopStart = z.object({
  type: z.literal("start"),
  execution_id: id,
  loop_id: id,
  ...ofStep,
  playbook: z.object({ path: z.string(), version: z.number(), hash: z.string() }),
  scope,
  redrive: z
    .object({ keyed: count, loop_id: id.optional(), items: z.string().optional() })
    .optional(),
});
const reason = z.string().transform(words => words.slice(0, REASON_CHARS_MAX));

/** A message to a loop or a fan-out, from its execution. */
const loopDelivery = <Kind extends "loops" | "fanout">(actor: Kind) =>
  z
    .object({
      to: address(actor),
      input: z.discriminatedUnion("type", [
        loopStart,
        z.object({ type: z.literal("cancel"), reason, start: loopStart }),
        z.object({ type: z.literal("stop"), reason, start: loopStart }),
        z.object({ type: z.literal("pause"), pause: count, start: loopStart }),
        z.object({ type: z.literal("resume"), pause: count, start: loopStart }),
      ]),
    })
    .refine(({ to, input }) => isFor(to, input.type === "start" ? input : input.start), {
      path: ["to"],
      message: "the stream that the loop's start names",
    });

export const loopsDeliver = loopDelivery("loops");
export const fanoutDeliver = loopDelivery("fanout");

const loopReport = {
  loop_id: id,
  ...ofStep,
  status: z.enum(["ok", "failed", "cancelled"]),
  stats: z.object({ total: count, success: count, failed: count, not_run: count }),
  ctx: object,
  cursor: z.object({ broke: count, frames: count }).optional(),
  fanin: z
    .object({
      status: z.enum(["complete", "partial", "failed", "cancelled"]),
      ...{ total: count, done: count, succeeded: count, failed: count },
    })
    .optional(),
  error: toolError.optional(),
} satisfies Fields<LoopReport>;

/** A message to an execution: of its loops, or of itself. */
export const executionsDeliver = z.object({
  to: address("executions"),
  input: z.discriminatedUnion("type", [
    z.object({ type: z.literal("loop_done"), ...loopReport }),
    z.object({ type: z.literal("cancel_children") }),
    z.object({ type: z.literal("pause_family") }),
    z.object({ type: z.literal("resume_family"), by: name }),
    z.object({ type: z.literal("follow"), above: id, by: name.optional() }),
  ]),
});

export type ExecutionsDeliver = z.output<typeof executionsDeliver>;

function isFor(
  to: { execution_id: string; stream_id: string },
  start: { execution_id: string; loop_id: string },
): boolean {
  return to.execution_id === start.execution_id && to.stream_id === start.loop_id;
}

/** As far as a fold depends on it; a type that only a newer node knows is no reason to refuse. */
function isStored(value: unknown): boolean {
  if (!isObject(value) || !isObject(value["meta"])) return false;
  const { event_type, execution_id, stream_id, version, at } = value;
  return (
    [event_type, execution_id, stream_id].every(one => typeof one === "string") &&
    Number.isSafeInteger(version) &&
    Number.isFinite(at)
  );
}

function isGrant(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { command_id, execution_id, stream_id, step, delivery } = value;
  const names = [command_id, execution_id, stream_id, step];
  return names.every(one => typeof one === "string") && Number.isSafeInteger(delivery);
}

function isScope(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { execution, workload, ctx, steps, upstream } = value;
  return (
    isObject(execution) &&
    typeof execution["id"] === "string" &&
    typeof execution["path"] === "string" &&
    [workload, ctx, steps].every(isObject) &&
    Object.values(steps as object).every(isObject) &&
    (upstream === undefined || typeof upstream === "string")
  );
}

/** One entry of a batch, or Rejected 422 that names the entry and its field. */
export function readEntry<Shape extends z.ZodType>(
  shape: Shape,
  entry: unknown,
  index: number,
): z.output<Shape> {
  return checked(shape, entry, `Entry ${index} is refused`);
}
