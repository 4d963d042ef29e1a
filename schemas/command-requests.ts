/** What a worker may ask the server's door: what waits, claims, and the events it reports. */
import { z } from "zod";
import { outcomeResult, resultReference, toolError } from "./events.ts";
import { frameReport } from "./frame-report.ts";
import { LIMITS, id } from "./requests.ts";
import { OFFERS_MAX } from "./needs.ts";
import { WORK_CLASSES } from "./work-class.ts";

/** Rings told in one answer, and outcomes taken in one batch. */
export const RINGS_MAX = 1_000;
export const BATCH_MAX = 500;
const NAME_CHARS_MAX = 256;
/** Of what a worker offers, in one text. */
const WORDS_CHARS_MAX = 8_192;

const name = (expected: string) =>
  z
    .string({ error: expected })
    .min(1, expected)
    .max(NAME_CHARS_MAX, `at most ${NAME_CHARS_MAX} characters`);

/** `{execution_id}:{step}:{activation}[:{index}]:{attempt}`, as the command was issued. */
const command_id = z
  .string({ error: "a command_id as it was issued" })
  .max(2_000, "a command_id as it was issued")
  .regex(/^[1-9]\d{0,18}:[^:]+(:[\w-]+){2,3}$/, "a command_id as it was issued");

const worker_id = name("the name of the worker");
/** The commands meant, when not all: `database` ones need a free database slot of the worker. */
const work_class = z.enum(WORK_CLASSES, { error: WORK_CLASSES.join(" or ") }).optional();
/** The stream that issued the command, when the asker was told it; else it is looked up. */
const stream_id = id.optional();

const nextClaim = z.strictObject({
  worker_id,
  incarnation: name("the incarnation of the worker"),
  claim_id: name("a text that names this claim"),
  only: work_class,
  /** What the worker offers: none of the commands that need more is handed to it. */
  offers: z.array(z.string().max(NAME_CHARS_MAX)).max(OFFERS_MAX).optional(),
});

export const commandsWaiting = z.strictObject({
  max: z.coerce
    .number({ error: `a whole number from 1 to ${RINGS_MAX}` })
    .int(`a whole number from 1 to ${RINGS_MAX}`)
    .min(1, `a whole number from 1 to ${RINGS_MAX}`)
    .max(RINGS_MAX, `a whole number from 1 to ${RINGS_MAX}`)
    .default(1),
  /** How long the asker is ready to wait for the first one, in milliseconds. */
  wait_ms: z.coerce
    .number({ error: `milliseconds, at most ${LIMITS.waitMaxMs}` })
    .int(`milliseconds, at most ${LIMITS.waitMaxMs}`)
    .min(0, `milliseconds, at most ${LIMITS.waitMaxMs}`)
    .max(LIMITS.waitMaxMs, `milliseconds, at most ${LIMITS.waitMaxMs}`)
    .default(0),
  work_class,
  /** What the asker offers, with commas; absent: it looks itself at what commands require. */
  words: z
    .string({ error: "words with commas" })
    .max(WORDS_CHARS_MAX, `at most ${WORDS_CHARS_MAX} characters`)
    .transform(text => text.split(",").filter(word => word !== ""))
    .optional(),
});

/** A value that the grant of a command names, as `scope_ref`, `collection_ref` or a mark does. */
export const commandsValue = z.strictObject({
  command_id,
  /** As it stands in the grant. */
  reference: resultReference,
  /** Of a collection, one item; 0-based. */
  index: z.int({ error: "a whole number" }).min(0, "0 or more").optional(),
});

export const commandsGet = z.strictObject({ command_id });

export const commandsClaim = z.strictObject({
  command_id,
  stream_id,
  worker_id,
  /** New with every start of the worker; its name when absent. */
  incarnation: name("the incarnation of the worker").optional(),
  /** The same claim_id gets the same answer again. */
  claim_id: name("a text that names this claim").optional(),
});

/** Whole milliseconds and counts that a worker says about its work. */
const count = z.number({ error: "a whole number" }).int("a whole number").min(0, "0 or more");

const jsonMap = z.record(z.string(), z.json(), { error: "a JSON object" });

const ofCommand = {
  command_id,
  stream_id,
  worker_id,
  delivery: count.min(1, "the delivery that the claim was answered with"),
};

const outcome = {
  ...ofCommand,
  /** `{status: ok | error, context | reference, error}`; the status fits the event. */
  result: outcomeResult.optional(),
  ctx: jsonMap.optional(),
  stats: z.strictObject({ task_runs: count, retries: count, duration_ms: count }).optional(),
  frame: z.strictObject(frameReport(z.json())).optional(),
  /** Where the grant says `gives_back`: the failure may pass. */
  give_back: z.strictObject({ error: toolError, index: count.optional() }).optional(),
  next: nextClaim.optional(),
};

const statusIs = (word: string) => ({ path: ["result", "status"], message: `'${word}'` });

/** The closed set of events a worker reports; anything else is refused at this door. */
export const workerEvent = z.discriminatedUnion(
  "event_type",
  [
    z
      .strictObject({ event_type: z.literal("command.completed"), ...outcome })
      .refine(({ result }) => result?.status !== "error", statusIs("ok")),
    z
      .strictObject({ event_type: z.literal("command.failed"), ...outcome })
      .refine(({ result }) => result?.status !== "ok", statusIs("error")),
    z.strictObject({ event_type: z.literal("command.released"), ...ofCommand }),
    z.strictObject({
      event_type: z.literal("command.heartbeat"),
      worker_id,
      incarnation: name("the incarnation of the worker").optional(),
      /** What it holds: the answer says which of these are over. */
      command_ids: z.array(command_id).max(BATCH_MAX, `at most ${BATCH_MAX} commands`).optional(),
    }),
  ],
  { error: "command.completed, command.failed, command.released or command.heartbeat" },
);

export const commandsReportOne = workerEvent;
export const commandsReport = z.strictObject({
  events: z
    .array(workerEvent, { error: "a list of events" })
    .min(1, "at least one event")
    .max(BATCH_MAX, `at most ${BATCH_MAX} events`),
});

export type CommandsWaiting = z.output<typeof commandsWaiting>;
export type CommandsValue = z.output<typeof commandsValue>;
export type CommandsClaim = z.output<typeof commandsClaim>;
export type WorkerEvent = z.output<typeof workerEvent>;
