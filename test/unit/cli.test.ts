/**
 * The command line's pure parts: payloads from options, words for people, exit codes, HTTP routes.
 */
import { strict as assert } from "node:assert";
import { jsonView } from "../../cli/execution-view.ts";
import type { ExecutionView } from "../../cli/execution-view.ts";
import { errorLines, errorReport, exitCodeOf, exitCodeOfStatus } from "../../cli/exit.ts";
import { isPlaybook, parseSets, readPayload } from "../../cli/inputs.ts";
import { describeProgress, openProgress, summaryLines } from "../../cli/progress.ts";
import { formatDuration, table } from "../../cli/terminal.ts";
import { Busy, Rejected, rejectIssues, Unavailable } from "../../schemas/errors.ts";

const VIEW: ExecutionView = {
  execution_id: "77",
  path: "examples/orders",
  status: "RUNNING",
  last_node_name: "details",
  start_time: "2026-01-01T00:00:00.000Z",
  duration_ms: 3200,
  loop_progress: { details: { loop_id: "l1", total: 1200, done: 37, failed: 1, in_flight: 8 } },
};

describe("cli inputs", () => {
  it("nest dots and parse JSON values of --set, and keep the rest as text", () => {
    const sets = ["a.b=1", "a.c=true", "name=Ada Lovelace", 's="3"', "list=[1,2]", "e=", "u=a=b"];
    assert.deepEqual(parseSets(sets), {
      ...{ a: { b: 1, c: true }, name: "Ada Lovelace", s: "3", list: [1, 2], e: "", u: "a=b" },
    });
  });

  it("keep digits that a number would lose", () => {
    assert.deepEqual(parseSets(["id=12345678901234567890"]), { id: "12345678901234567890" });
  });

  it("refuse a --set without a name, and keys that reach into prototypes", () => {
    for (const set of ["novalue", "=1", "a..b=1", "__proto__.x=1", "a.constructor=1"]) {
      assert.throws(() => parseSets([set]), { type: "REJECTED" }, set);
    }
    assert.equal(({} as Record<string, unknown>)["x"], undefined);
  });

  it("lay --set over --payload without losing its neighbours", async () => {
    const payload = await readPayload('{"a":{"b":1,"c":2},"d":3}', ["a.b=9"]);
    assert.deepEqual(payload, { a: { b: 9, c: 2 }, d: 3 });
    assert.equal(await readPayload(undefined, []), undefined);
  });

  it("refuse a payload that is no JSON object, without repeating it", async () => {
    for (const text of ["[1]", "{hunter2", "3"]) {
      await assert.rejects(readPayload(text), (error: Rejected) => {
        assert.doesNotMatch(error.message, /hunter2/);
        return error.type === "REJECTED";
      });
    }
    await assert.rejects(readPayload("@/no/such/file.json"), { message: /there is no such file/ });
  });

  it("tell playbooks from other YAML", () => {
    assert.ok(isPlaybook("apiVersion: noetl.io/v2\nkind: Playbook\n"));
    assert.ok(!isPlaybook("kind: ConfigMap\n"));
  });
});

describe("cli output", () => {
  it("prints the object of --json with an error or a result only where there is one", () => {
    assert.deepEqual(Object.keys(jsonView(VIEW)), [
      ...["execution_id", "path", "status", "start_time", "end_time", "duration_ms"],
      "loop_progress",
    ]);
    const failed = jsonView({ ...VIEW, status: "FAILED", error: { message: "no" }, result: null });
    assert.deepEqual(failed["error"], { message: "no" });
    assert.ok(!("result" in failed));
  });

  it("shows the running loop, how fast it goes, and what is left once that can be said", () => {
    assert.equal(describeProgress(VIEW), "details 38/1,200 3%, 1 failed, 8 running");
    const later = structuredClone(VIEW);
    Object.assign(later.loop_progress!["details"]!, { rate_per_second: 42.3, eta_seconds: 28 });
    const text = "details 38/1,200 3%, 1 failed, 8 running, 42/s, 28 s left";
    assert.equal(describeProgress(later), text);
    Object.assign(later.loop_progress!["details"]!, { rate_per_second: 0.125, eta_seconds: 9_300 });
    assert.match(describeProgress(later), /0\.13\/s, 2 h 35 m left$/);
  });

  it("redraws one line on a terminal, cut to its width", () => {
    const written: string[] = [];
    const write = (text: string) => void written.push(text);
    const progress = openProgress({ live: true, colored: false, columns: 24, write }, 0);
    progress.show(VIEW, 1_000);
    assert.ok(written[0]?.startsWith("\r\u001b[2K⠋ details 38/1,200"));
    assert.ok((written[0] ?? "").length <= 24 + 5);
  });

  it("writes a plain line for each step, and every few seconds inside one", () => {
    const written: string[] = [];
    const write = (text: string) => void written.push(text);
    const progress = openProgress({ live: false, colored: false, columns: 80, write }, 0);
    for (const ms of [0, 100, 4_000, 6_000]) progress.show(VIEW, ms);
    progress.show({ ...VIEW, last_node_name: "totals", loop_progress: {} }, 6_100);
    assert.deepEqual(written.length, 3);
    assert.match(written[2] ?? "", /totals\n$/);
  });

  it("sums up a run: mark, duration, iterations, the failed step and its message", () => {
    const state = { counts: { steps: 4, retries: 3 } };
    const error = { step: "details", message: "HTTP 500" };
    const lines = summaryLines({ ...VIEW, status: "FAILED", error, state }, false);
    assert.deepEqual(lines, [
      "✘ FAILED  examples/orders  3.2 s",
      "  execution 77",
      "  4 steps, 3 retries",
      "  details: 37 of 1,200 iterations, 1 failed, 8 running",
      "  step 'details': HTTP 500",
    ]);
  });

  it("shows a small result and leaves a large one to --json", () => {
    const done = { ...VIEW, status: "COMPLETED", loop_progress: {} };
    const small = summaryLines({ ...done, result: { total: 3 } }, false);
    assert.equal(small.at(-1), '  result {"total":3}');
    const large = summaryLines({ ...done, result: "x".repeat(5000) }, false);
    assert.equal(large.length, 2);
  });

  it("formats durations and tables", () => {
    const words = [40, 3_240, 65_000, 7_380_000].map(formatDuration);
    assert.deepEqual(words, ["40 ms", "3.2 s", "1 m 05 s", "2 h 03 m"]);
    assert.equal(
      table([
        ["A", "B"],
        ["long", "x"],
      ]),
      "A     B\nlong  x",
    );
  });
});

describe("cli exit", () => {
  it("is 2 for the caller's fault, 3 for the world's and 1 for a failed execution or a bug", () => {
    assert.equal(exitCodeOf(new Rejected("no")), 2);
    assert.equal(exitCodeOf(new Unavailable("no")), 3);
    assert.equal(exitCodeOf(new Busy("no", { retry_after_ms: 1 })), 3);
    assert.equal(exitCodeOf(new Error("bug")), 1);
    const byStatus = ["COMPLETED", "FAILED", "CANCELLED", "RUNNING"].map(exitCodeOfStatus);
    assert.deepEqual(byStatus, [0, 1, 1, 0]);
  });

  it("lists every issue with its place, and a hint where there is one", () => {
    const issues = [
      {
        message: "unknown step 'b'",
        file: "x.yaml",
        line: 3,
        column: 5,
        hint: "did you mean 'a'?",
      },
      { message: "missing tool", file: "x.yaml", line: 9 },
    ];
    const lines = errorLines(rejectIssues(issues, "the playbook is not valid"));
    assert.equal(lines[0], "the playbook is not valid: 2 problems");
    assert.match(lines[1] ?? "", /x\.yaml:3:5: unknown step 'b'; \(did you mean 'a'\?\)/);
    const hinted = new Rejected("there is no playbook 'x'", 404, { hint: "did you mean 'y'?" });
    assert.deepEqual(errorLines(hinted), ["there is no playbook 'x'", "  did you mean 'y'?"]);
  });

  it("reports an error as one object for --json", () => {
    assert.deepEqual(errorReport(new Rejected("no", 404)), {
      error: { type: "REJECTED", code: 404, message: "no" },
    });
  });
});
