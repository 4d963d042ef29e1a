/** The grammar of a playbook as zod schemas, one per map; what is nested has its own reader. */
import { z } from "zod";
import { readRequires } from "../needs.ts";
import { KNOWN_KINDS } from "../tool.ts";
import { durationMs } from "./duration.ts";
import { hasTemplate } from "./template.ts";

/** An author may leave any optional field empty: YAML reads it as null, and it means absent. */
const map = z.record(z.string(), z.unknown());
const anything = z.unknown();
const bool = z.boolean();

/** A value that a predicate accepts; `expected` completes the sentence "must be …". */
function only<T>(expected: string, accepts: (value: unknown) => boolean) {
  return z.custom<T>(accepts, { error: expected });
}

function isFilled(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}

function isTemplate(value: unknown): boolean {
  return typeof value === "string" && hasTemplate(value);
}

const filled = only<string>("text that is not empty", isFilled);
const scalar = z.union([z.string(), z.number(), z.boolean()]);
const guard = only<string | boolean>(
  "a template, true or false",
  value => isFilled(value) || typeof value === "boolean",
);
const auth = only<string | Record<string, unknown>>(
  "the name of a credential, or a map",
  value => isFilled(value) || map.safeParse(value).success,
);
const count = only<number | string>(
  "a whole number of at least 1, or a template",
  value => isTemplate(value) || (Number.isInteger(value) && (value as number) >= 1),
);
const amount = only<number | string>(
  "a number of at least 0, or a template",
  value => isTemplate(value) || (typeof value === "number" && value >= 0),
);
const duration = only<number | string>(
  'a duration like "500ms", "30s", "5m", "1h", or a number of seconds',
  value => durationMs(value) !== undefined,
);
const requirement = only<unknown>(
  "a list of capabilities such as [gpu], or {capabilities: [gpu], labels: {zone: eu}}",
  value => readRequires(value) !== undefined,
);
const name = /^[A-Za-z_][A-Za-z0-9_]*$/;
const identifier = only<string>(
  "a name of letters, digits and underscores",
  value => typeof value === "string" && name.test(value),
);
const tags = only<string | string[]>("text or a list of text", value =>
  [value].flat().every(tag => typeof tag === "string"),
);

export const rootGrammar = z.object({
  apiVersion: z.enum(["noetl.io/v2", "noetl.io/v10"]),
  kind: z.literal("Playbook"),
  metadata: map,
  executor: map.nullish(),
  keychain: z.array(map).nullish(),
  workload: map.nullish(),
  workbook: z.array(anything).nullish(),
  workflow: z.array(anything).min(1),
});

export const metadataGrammar = z.object({
  name: filled,
  path: filled.nullish(),
  description: scalar.nullish(),
  version: scalar.nullish(),
  tags: tags.nullish(),
  capabilities: tags.nullish(),
  labels: z.record(z.string(), scalar.nullable()).nullish(),
  exposes_as_mcp: bool.nullish(),
  exposed_in_ui: bool.nullish(),
});

const loopMode = z.enum(["local", "fanout"]).nullish();

export const fanoutGrammar = z.object({
  max_in_flight: count.nullish(),
  max_concurrent_shards: count.nullish(),
  batch: count.nullish(),
  max_shard_retries: z.int().min(0).nullish(),
  max_job_retries: z.int().min(0).nullish(),
  max_shards: count.nullish(),
  queue_ttl: duration.nullish(),
  lease_timeout: duration.nullish(),
  fail_fast: bool.nullish(),
  allow_partial: bool.nullish(),
});

export const executorGrammar = z.object({
  profile: z.enum(["local", "distributed", "auto"]).nullish(),
  version: scalar.nullish(),
  requires: map.nullish(),
  spec: map.nullish(),
});

export const executorSpecGrammar = z.object({
  entry_step: filled.nullish(),
  final_step: filled.nullish(),
  no_next_is_error: bool.nullish(),
  timeout: duration.nullish(),
  loop_mode: loopMode,
  fanout: map.nullish(),
  policy: map.nullish(),
  pool: anything,
  kind: anything,
});

export const keychainGrammar = z.object({ name: filled, kind: filled.nullish() });

export const workbookGrammar = z.object({
  name: filled,
  tool: map,
  desc: anything,
  sink: anything,
  assert: anything,
});

export const stepGrammar = z.object({
  step: filled,
  desc: scalar.nullish(),
  tool: only<unknown>("a map with kind, or a list of tasks", value => isToolShape(value)),
  loop: map.nullish(),
  input: map.nullish(),
  output: map.nullish(),
  set: map.nullish(),
  next: anything,
  spec: map.nullish(),
});

function isToolShape(value: unknown): boolean {
  return Array.isArray(value) || map.safeParse(value).success;
}

export const stepSpecGrammar = z.object({
  timeout: duration.nullish(),
  queue_timeout: duration.nullish(),
  attempt_timeout: duration.nullish(),
  policy: map.nullish(),
  loop_mode: loopMode,
  fanout: map.nullish(),
  requires: requirement.nullish(),
});

export const stepPolicyGrammar = z.object({
  admit: map.nullish(),
  failure: map.nullish(),
  lifecycle: map.nullish(),
  emit: anything,
});

export const failureGrammar = z.object({ mode: z.enum(["fail_fast", "best_effort"]).nullish() });

export const admitGrammar = z.object({
  mode: z.enum(["exclusive", "inclusive"]).nullish(),
  rules: z.array(anything).nullish(),
});

export const ruleGrammar = z.object({
  when: guard.nullish(),
  then: map.nullish(),
  else: map.nullish(),
});

export const allowGrammar = z.object({ allow: bool });

export const actionGrammar = z.object({
  do: z.enum(["continue", "retry", "jump", "break", "fail"]),
  attempts: z.int().min(1).nullish(),
  backoff: z.enum(["none", "fixed", "linear", "exponential"]).nullish(),
  delay: amount.nullish(),
  to: filled.nullish(),
  set: map.nullish(),
});

/** What all kinds share, in the tool itself or lifted from its `spec`; the rest is the kind's. */
export const toolGrammar = z.object({
  kind: z.enum(KNOWN_KINDS),
  auth: auth.nullish(),
  credential: auth.nullish(),
  input: map.nullish(),
  args: map.nullish(),
  set: map.nullish(),
  output: map.nullish(),
  spec: map.nullish(),
});

export const toolSpecGrammar = toolGrammar
  .omit({ kind: true, spec: true })
  .extend({ policy: map.nullish() });

export const policyGrammar = z.object({ rules: z.array(anything) });

export const loopGrammar = z.object({
  in: only<unknown>(
    "a template, a list, a map or a number",
    value => value !== "" && value !== true && value !== false,
  ).nullish(),
  cursor: map.nullish(),
  iterator: identifier,
  spec: map.nullish(),
});

export const loopSpecGrammar = z.object({
  mode: z.enum(["sequential", "parallel", "cursor"]).nullish(),
  max_in_flight: count.nullish(),
  policy: map.nullish(),
  frame: map.nullish(),
  tolerated_failure_count: z.int().min(0).nullish(),
  tolerated_failure_percent: z.number().min(0).max(100).nullish(),
  tolerated_failure_percentage: z.number().min(0).max(100).nullish(),
  retry_budget: count.nullish(),
});

export const loopPolicyGrammar = z.object({
  exec: z.enum(["local", "distributed"]).nullish(),
  retry_budget: count.nullish(),
  results: anything,
});

const retryMode = only<string>(
  "whole_frame or none, or a template",
  value => isTemplate(value) || value === "whole_frame" || value === "none",
);

export const frameGrammar = z.object({
  max_rows: count.nullish(),
  max_seconds: amount.nullish(),
  max_bytes: count.nullish(),
  lease_seconds: amount.nullish(),
  heartbeat_seconds: amount.nullish(),
  row_concurrency: count.nullish(),
  max_attempts: count.nullish(),
  process: z.enum(["row", "frame"]).nullish(),
  verify_ipc: bool.nullish(),
  retry_mode: retryMode.nullish(),
});

export const cursorOptionsGrammar = z.object({ max_iterations: count.nullish() });

export const cursorGrammar = z.object({
  kind: z.literal("postgres"),
  auth: auth.nullish(),
  credential: auth.nullish(),
  claim: filled,
  options: map.nullish(),
});

export const routerGrammar = z.object({
  spec: map.nullish(),
  arcs: z.array(anything).nullish(),
});

export const routerSpecGrammar = z.object({
  mode: z.enum(["exclusive", "inclusive"]).nullish(),
  on_no_match: z.enum(["complete", "quiet"]).nullish(),
  policy: anything,
});

export const arcGrammar = z.object({
  step: filled,
  when: guard.optional(),
  set: map.nullish(),
  spec: anything,
});
