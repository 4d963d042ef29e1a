/**
 * What a caller may ask: one strict zod shape per action, and the wrapper that applies it on any
 * broker.
 */
import { z } from "zod";
import { rejectIssues } from "./errors.ts";
import type { Issue } from "./errors.ts";
import { durationMs } from "./playbook/duration.ts";

/** Limits of a request. Each has a name, because each will be met by somebody. */
export const LIMITS = {
  playbookMaxChars: 4_194_304,
  payloadMaxBytes: 4_194_304,
  credentialMaxBytes: 262_144,
  pathMaxChars: 512,
  idempotencyKeyMaxChars: 256,
  reasonMaxChars: 1_000,
  pageSizeMax: 1_000,
  listMax: 500,
  tailMax: 500,
  seenMaxChars: 64,
  whereMaxBytes: 16_384,
  waitMaxMs: 30_000,
} as const;

/** The largest bigint of the database. */
const ID_MAX = "9223372036854775807";

/** Ids are snowflakes: 64-bit numbers, carried as text because JSON numbers lose digits. */
export const id = z
  .string({ error: "an id as text (digits)" })
  .regex(/^[1-9]\d{0,18}$/, "an id of 1 to 19 digits, as text")
  // Digits of equal number compare as text.
  .refine(text => text.length < ID_MAX.length || text <= ID_MAX, `an id of at most ${ID_MAX}`);

const path = z
  .string({ error: "a catalog path such as examples/hello" })
  .trim()
  .min(1, "a catalog path such as examples/hello")
  .max(LIMITS.pathMaxChars, `a path of at most ${LIMITS.pathMaxChars} characters`)
  .transform(text => text.replace(/^catalog:\/\//, ""));

const playbook = z
  .string({ error: "the YAML of a playbook, as text" })
  .min(1, "the YAML of a playbook, as text")
  .max(LIMITS.playbookMaxChars, `at most ${LIMITS.playbookMaxChars} characters`);

/** Query strings carry numbers as text, so both are taken. */
function within(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  return z.coerce.number({ error: expected }).int(expected).min(min, expected).max(max, expected);
}

function whole(min: number, max: number, fallback: number) {
  return within(min, max).default(fallback);
}

function jsonObject(maxBytes: number) {
  return z
    .record(z.string(), z.unknown(), { error: "a JSON object" })
    .refine(value => sizeOf(value) <= maxBytes, `a JSON object of at most ${maxBytes} bytes`);
}

function sizeOf(value: unknown): number {
  try {
    return Buffer.byteLength(JSON.stringify(value) ?? "");
  } catch {
    // A cycle or a bigint: not JSON, so larger than any limit.
    return Infinity;
  }
}

const version = z.coerce
  .number({ error: "a version, counting from 1" })
  .int("a version, counting from 1")
  .min(1, "a version, counting from 1");

const TIMEOUT = 'a duration such as "30s" or "2h", or a number of seconds';

export const executionsStart = z
  .strictObject({
    path: path.optional().describe("Of a registered playbook; or `playbook`, but not both"),
    playbook: playbook
      .optional()
      .describe("YAML text, registered under its own path before it starts"),
    version: version.optional().describe("The newest when absent"),
    payload: jsonObject(LIMITS.payloadMaxBytes)
      .optional()
      .describe("Merged over the playbook's workload, key by key"),
    parent_execution_id: id.optional(),
    timeout: z
      .union([z.string(), z.number()], { error: TIMEOUT })
      .refine(value => durationMs(value) !== undefined, TIMEOUT)
      .optional()
      .describe("The longest the run may take; the playbook's executor.spec.timeout when absent"),
    idempotency_key: z
      .string({ error: "a text" })
      .min(1, "a text that is not empty")
      .max(LIMITS.idempotencyKeyMaxChars, `at most ${LIMITS.idempotencyKeyMaxChars} characters`)
      .optional()
      .describe("The same key with the same request answers the same execution"),
  })
  .refine(request => (request.path === undefined) !== (request.playbook === undefined), {
    path: ["path"],
    message: "either path or playbook, one of the two",
  });

export const executionId = z.strictObject({ execution_id: id });

export const EXECUTION_STATUSES = [
  "RUNNING",
  "PAUSED",
  "COMPLETED",
  "FAILED",
  "CANCELLED",
] as const;
export type ExecutionStatus = (typeof EXECUTION_STATUSES)[number];

export const executionsList = z.strictObject({
  limit: whole(1, LIMITS.listMax, 50),
  before: id.optional().describe("Only older ones: the `next` of the page before"),
  status: z
    .string()
    .transform(text => text.toUpperCase())
    .pipe(z.enum(EXECUTION_STATUSES, { error: `one of ${EXECUTION_STATUSES.join(", ")}` }))
    .optional()
    .describe(EXECUTION_STATUSES.join(", ")),
  path: path.optional(),
});

export const executionsEvents = z.strictObject({
  execution_id: id,
  page: whole(1, 1_000_000, 1),
  page_size: whole(1, LIMITS.pageSizeMax, 100),
  event_type: z
    .string({ error: "an event type such as step.enter" })
    .regex(/^[\w.]{1,64}$/, "an event type such as step.enter")
    .optional(),
});

export const executionsCancel = z.strictObject({
  execution_id: id,
  reason: z.string().max(LIMITS.reasonMaxChars, "a shorter text").optional(),
});

export const executionsPause = executionsCancel;

const bool = z.union([z.boolean(), z.enum(["true", "false"]).transform(word => word === "true")], {
  error: "true or false",
});
/** `false` when absent; a query has words only. */
const yesOrNo = bool.default(false);

export const executionsResume = z.strictObject({
  execution_id: id,
  adopt: bool
    .default(true)
    .describe("Take over what no other process goes on with; false: only end a pause"),
});

const stepName = z.string({ error: "the name of a step" }).min(1, "the name of a step");

export const executionsRedrive = z.strictObject({
  execution_id: id,
  step: stepName.optional().describe("Only this one of the steps that failed; all, when absent"),
  where: jsonObject(LIMITS.whereMaxBytes)
    .optional()
    .describe(
      'Only failed items that contain it, as {index, item, error}: {"error": {"code": "HTTP_503"}}',
    ),
  generation: within(0, 1_000_000)
    .optional()
    .describe("Of the end that was seen: a request that is repeated redrives that end once"),
});

export const executionsFailures = z.strictObject({
  execution_id: id,
  step: stepName.optional().describe("The first loop that has failed items, when absent"),
  after: whole(-1, 1_000_000, -1).describe("Only above this index: `next` of the page before"),
  limit: whole(1, LIMITS.listMax, 100),
});

export const executionsDeadLetters = z.strictObject({
  execution_id: id.optional().describe("Of all executions, when absent"),
  before: id.optional().describe("Only older ones: the `next` of the page before"),
  limit: whole(1, LIMITS.listMax, 50),
});

export const executionsWait = z.strictObject({
  execution_id: id,
  timeout_ms: whole(0, LIMITS.waitMaxMs, 10_000).describe("Longest wait, in milliseconds"),
  descendants: yesOrNo.describe("Also wait for every child started below it"),
});

export const executionsTail = z.strictObject({
  execution_id: id,
  after: whole(0, 2_147_483_647, 0).describe(
    "Version of the execution's own stream up to which its facts are known",
  ),
  seen: z
    .string({ error: "the `seen` of the answer before" })
    .max(LIMITS.seenMaxChars, "the `seen` of the answer before")
    .optional()
    .describe("Of the answer before: another view answers at once. Without it the first does"),
  timeout_ms: whole(0, LIMITS.waitMaxMs, 10_000).describe("Longest wait, in milliseconds"),
  limit: whole(1, LIMITS.tailMax, 100).describe("Facts of one answer at most"),
});

/** Of the stream over HTTP: how long it waits and how much it takes at once is its own affair. */
export const executionsStream = executionsTail.pick({ execution_id: true, after: true });

export const executionsResult = z.strictObject({
  execution_id: id,
  step: stepName.optional().describe("The last step that finished, when absent"),
});

export const catalogRegister = z.strictObject({
  content: playbook,
  file: z
    .string({ error: "a file name" })
    .max(4_096, "a shorter file name")
    .optional()
    .describe("Shown in errors; nothing is read from it"),
  strict: yesOrNo.describe("Refuse also what would fail for want of a program, such as python3"),
  resource_type: z
    .string()
    .refine(text => text.toLowerCase() === "playbook", "Playbook")
    .optional()
    .describe("What NoETL's own clients send; playbooks are the only resource here"),
});

export const catalogGet = z.strictObject({ path, version: version.optional() });

export const catalogList = z.strictObject({ limit: whole(1, LIMITS.listMax, 200) });

export const credentialsRegister = z.strictObject({
  name: z
    .string({ error: "an alias" })
    .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/, "an alias of letters, digits, _ . -"),
  type: z
    .string({ error: "a type such as postgres" })
    .regex(/^[\w-]{1,64}$/, "a type such as postgres"),
  data: jsonObject(LIMITS.credentialMaxBytes),
});

export const workersList = z.strictObject({ limit: whole(1, LIMITS.listMax, 200) });

export const nothing = z.strictObject({});

export type ExecutionsStart = z.output<typeof executionsStart>;
export type ExecutionsList = z.output<typeof executionsList>;
export type ExecutionsEvents = z.output<typeof executionsEvents>;
export type ExecutionsResult = z.output<typeof executionsResult>;
export type ExecutionsCancel = z.output<typeof executionsCancel>;
export type ExecutionsPause = z.output<typeof executionsPause>;
export type ExecutionsResume = z.output<typeof executionsResume>;
export type ExecutionsRedrive = z.output<typeof executionsRedrive>;
export type ExecutionsFailures = z.output<typeof executionsFailures>;
export type ExecutionsDeadLetters = z.output<typeof executionsDeadLetters>;
export type ExecutionsTail = z.output<typeof executionsTail>;
export type ExecutionsWait = z.output<typeof executionsWait>;
export type CatalogRegister = z.output<typeof catalogRegister>;
export type WorkersList = z.output<typeof workersList>;
export type CatalogGet = z.output<typeof catalogGet>;
export type CredentialsRegister = z.output<typeof credentialsRegister>;

/**
 * Wraps an action's handler so that it sees checked parameters, on any broker: nothing depends on
 * the broker's own validator. `this` is the service. Throws Rejected 422 whose `data.issues` name
 * the keys and what was expected, never the values that came.
 *
 *     get: validated(executionId, function (ctx, { execution_id }) { … })
 */
export function validated<
  Shape extends z.ZodType,
  Context extends { params: unknown },
  This,
  Result,
>(
  shape: Shape,
  handler: (this: This, ctx: Context, params: z.output<Shape>) => Result,
): (this: This, ctx: Context) => Result {
  return function checkedHandler(this: This, ctx: Context): Result {
    return handler.call(this, ctx, checked(shape, ctx.params ?? {}));
  };
}

/** The parsed value, or Rejected 422 with one issue per problem. */
export function checked<Shape extends z.ZodType>(
  shape: Shape,
  value: unknown,
  what = "The request is refused",
): z.output<Shape> {
  const result = shape.safeParse(value);
  if (result.success) return result.data;
  throw rejectIssues(
    result.error.issues.flatMap(problem => issuesOf(problem, value)),
    what,
  );
}

function issuesOf(problem: z.core.$ZodIssue, value: unknown): Issue[] {
  const field = problem.path.map(String).join(".");
  if (problem.code === "unrecognized_keys") {
    return problem.keys.map(key => ({
      field: field ? `${field}.${key}` : key,
      message: "there is no such field",
    }));
  }
  const message = isMissing(value, problem.path) ? "this is missing" : "this cannot be used";
  const expected = problem.message.replace(/^Invalid input: expected (\w+).*$/, "an $1");
  return [{ ...(field && { field }), message, expected }];
}

function isMissing(value: unknown, keys: readonly PropertyKey[]): boolean {
  let inner = value;
  for (const key of keys) inner = (inner as Record<PropertyKey, unknown> | null)?.[key];
  return inner === undefined;
}
