// The shapes at the doors of actors: what passes, and which field is named when it does not.
import { strict as assert } from "node:assert";
import type { z } from "zod";
import {
  BATCH_MAX,
  claimBatch,
  claimEntry,
  executionsDeliver,
  loopsDeliver,
  outcomeEntry,
  readEntry,
  releaseEntry,
  wakeBatch,
  workerHolds,
} from "../../schemas/actor-requests.ts";
import { checked } from "../../schemas/requests.ts";

const NAMES = { worker_id: "w", incarnation: "i", claim_id: "c" };
const STREAM = { execution_id: "7000000000000000001", stream_id: "7000000000000000002" };
const CLAIM = { ...STREAM, command_id: "7000000000000000001:load:1:0:1" };
const REFERENCE = { ref: "noetl://x", bytes: 3, tier: "volume", extract: { n: 1 } };
const OUTCOME = {
  ...CLAIM,
  delivery: 1,
  worker_id: "w",
  result: {
    status: "ok",
    context: { deep: [[{ a: null }]] },
    reference: REFERENCE,
    error: { kind: "http", retryable: true, code: "E", message: "m", status_code: 503 },
    envelope: { http: { status: 200 } },
  },
  ctx: { seen: [1, { a: 2 }] },
  stats: { task_runs: 1, retries: 0, duration_ms: 1.5 },
  frame: {
    ...{ ok: "0-2,4", failed: "3", final: true, drained: false, broke: 1 },
    left: { rows: [{ key: "c0-1-1-1-5", row: { id: 5 } }], reference: REFERENCE },
  },
  next: NAMES,
};
const SCOPE = {
  execution: { id: "1", path: "a" },
  workload: { items: [1] },
  ctx: {},
  steps: { first: { status: "ok", context: 1 } },
  upstream: "first",
};
const START = {
  type: "start",
  execution_id: STREAM.execution_id,
  loop_id: STREAM.stream_id,
  step: "load",
  activation: 1,
  playbook: { path: "a", version: 1, hash: "h" },
  scope: SCOPE,
};
const TO_LOOP = { actor: "loops", ...STREAM };
const TO_EXECUTION = { actor: "executions", ...STREAM };
const DONE = {
  type: "loop_done",
  loop_id: STREAM.stream_id,
  step: "load",
  activation: 1,
  status: "ok",
  stats: { total: 2, success: 1, failed: 1, not_run: 0 },
  ctx: { a: 1 },
  cursor: { broke: 1, frames: 2 },
  error: { kind: "k", retryable: false, code: "C", message: "m" },
};

/** A value with one field replaced; undefined removes it. Keys of `at` are joined by dots. */
function but<T>(value: T, at: string, other: unknown): T {
  const copy = structuredClone(value) as Record<string, unknown>;
  const keys = at.split(".");
  const last = keys.pop() as string;
  const place = keys.reduce((inner, key) => inner[key] as Record<string, unknown>, copy);
  if (other === undefined) delete place[last];
  else place[last] = other;
  return copy as T;
}

/** Shape, a value that passes, and fields with what is no good there. */
const BAD: [string, z.ZodType, object, [string, unknown][]][] = [
  [
    "a claim",
    claimEntry,
    CLAIM,
    [
      ["execution_id", 7],
      ["execution_id", "9999999999999999999"],
      ["stream_id", "abc"],
      ["stream_id", "-1"],
      ["stream_id", undefined],
      ["command_id", ""],
      ["command_id", "x".repeat(2_001)],
      ["command_id", { $ne: 1 }],
    ],
  ],
  [
    "an outcome",
    outcomeEntry,
    OUTCOME,
    [
      ["delivery", 1.5],
      ["delivery", -1],
      ["delivery", "1"],
      ["worker_id", null],
      ["result", undefined],
      ["result", null],
      ["result", []],
      ["result.status", "fine"],
      ["result.reference", "noetl://x"],
      ["result.reference.bytes", "3"],
      ["result.reference.extract", [1]],
      ["result.error", { message: "only" }],
      ["result.envelope", "x"],
      ["ctx", []],
      ["ctx", "x"],
      ["stats.retries", "many"],
      ["frame.final", "yes"],
      ["frame.ok", undefined],
      ["frame.broke", -1],
      ["frame.left.rows", {}],
      ["frame.left.reference", "noetl://x"],
      ["next", true],
      ["next.claim_id", undefined],
    ],
  ],
  [
    "a release",
    releaseEntry,
    { ...CLAIM, delivery: 1, worker_id: "w" },
    [
      ["delivery", undefined],
      ["worker_id", "x".repeat(300)],
    ],
  ],
  [
    "a batch of claims",
    claimBatch,
    { ...NAMES, claims: [] },
    [
      ["claims", undefined],
      ["claims", {}],
      ["claims", Array(BATCH_MAX + 1).fill(CLAIM)],
      ["worker_id", 5],
      ["incarnation", ""],
      ["claim_id", null],
    ],
  ],
  ["wake-ups", wakeBatch, { streams: [] }, [["streams", "all"]]],
  [
    "a question to a worker",
    workerHolds,
    { incarnation: "i", command_ids: ["a"] },
    [
      ["command_ids", "a"],
      ["command_ids", Array(BATCH_MAX + 1).fill("a")],
    ],
  ],
  [
    "a message to a loop",
    loopsDeliver,
    { to: TO_LOOP, input: START },
    [
      ["to", undefined],
      ["to.actor", "executions"],
      ["to.stream_id", STREAM.execution_id],
      ["to.execution_id", "5"],
      ["input.type", "claim"],
      ["input.type", "wake"],
      ["input.activation", "1"],
      ["input.playbook", "a@1"],
      ["input.scope", null],
      ["input.scope", { ...SCOPE, steps: { first: 5 } }],
      ["input.scope", { ...SCOPE, workload: [] }],
      ["input.scope", { ...SCOPE, execution: {} }],
    ],
  ],
  [
    "the end of a loop",
    loopsDeliver,
    { to: TO_LOOP, input: { type: "cancel", reason: "r", start: START } },
    [
      ["input.start", undefined],
      ["to.stream_id", "5"],
      ["input.reason", 5],
    ],
  ],
  [
    "a loop's report",
    executionsDeliver,
    { to: TO_EXECUTION, input: DONE },
    [
      ["to.actor", "loops"],
      ["input", null],
      ["input.type", "outcome"],
      ["input.type", "describe"],
      ["input.status", "fine"],
      ["input.stats.failed", -1],
      ["input.ctx", null],
      ["input.error", "bad"],
    ],
  ],
];

describe("requests to actors", () => {
  for (const [what, shape, good, bad] of BAD) {
    it(`${what} passes as it is`, () => {
      assert.deepEqual(checked(shape, good), good);
    });

    for (const [at, value] of bad) {
      const shown = (JSON.stringify(value) ?? "nothing").slice(0, 40);
      it(`${what} with ${at}: ${shown} is refused, and names ${at}`, () => {
        assert.throws(
          () => checked(shape, but(good, at, value)),
          (error: { type: string; code: number; data: { issues: { field?: string }[] } }) => {
            assert.deepEqual([error.type, error.code], ["REJECTED", 422]);
            const fields = error.data.issues.map(issue => issue.field ?? "");
            const isNamed = fields.some(field => at.startsWith(field) || field.startsWith(at));
            assert.ok(isNamed && fields[0] !== "", `${at} is not one of ${fields.join(", ")}`);
            return true;
          },
        );
      });
    }
  }

  it("an entry that is refused is named by its place", () => {
    assert.throws(() => readEntry(claimEntry, 5, 17), { type: "REJECTED", message: /^Entry 17 / });
    assert.throws(() => readEntry(claimEntry, null, 0), { type: "REJECTED" });
  });

  it("fields that only a newer node knows are dropped, and nothing else", () => {
    assert.deepEqual(readEntry(claimEntry, { ...CLAIM, lane: "fast" }, 0), CLAIM);
    const { result } = readEntry(outcomeEntry, but(OUTCOME, "result.newer", 1), 0);
    assert.deepEqual(result, OUTCOME.result);
  });

  it("names of prototypes are names like others", () => {
    const ctx = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}') as object;
    const read = readEntry(outcomeEntry, { ...OUTCOME, ctx }, 0);
    assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
    assert.equal(JSON.stringify(read.ctx), JSON.stringify(ctx));
  });
});
