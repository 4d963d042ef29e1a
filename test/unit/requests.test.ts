/** Request shapes: what a caller may ask, and refusals that name fields but no values. */
import { strict as assert } from "node:assert";
import type { z } from "zod";
import { formatIssue } from "../../schemas/errors.ts";
import type { Issue, Rejected } from "../../schemas/errors.ts";
import * as requests from "../../schemas/requests.ts";

function issuesOf(shape: z.ZodType, value: unknown): Issue[] {
  try {
    requests.checked(shape, value);
  } catch (error) {
    const { code, type, data } = error as Rejected;
    assert.deepEqual([code, type], [422, "REJECTED"]);
    return data["issues"] as Issue[];
  }
  throw new Error("the request was accepted");
}

describe("requests", () => {
  it("start with a path, with catalog:// left out, or with the YAML itself", () => {
    const byPath = requests.checked(requests.executionsStart, {
      path: "catalog://a/b",
      payload: {},
    });
    assert.deepEqual(byPath, { path: "a/b", payload: {} });
    requests.checked(requests.executionsStart, { playbook: "kind: Playbook" });
    for (const request of [{}, { path: "a", playbook: "b" }]) {
      assert.match(formatIssue(issuesOf(requests.executionsStart, request)[0]!), /either path or/);
    }
  });

  it("refuse unknown fields by name", () => {
    const issues = issuesOf(requests.executionsStart, { path: "a", paylod: {} });
    assert.deepEqual(issues, [{ field: "paylod", message: "there is no such field" }]);
  });

  it("say what was expected and never what came", () => {
    const request = { name: "pg local!", type: "postgres", data: "hunter2" };
    const issues = issuesOf(requests.credentialsRegister, request);
    assert.deepEqual(
      issues.map(issue => issue.field),
      ["name", "data"],
    );
    assert.doesNotMatch(JSON.stringify(issues), /hunter2|pg local/);
    assert.equal(issues[1]?.expected, "a JSON object");
  });

  it("tell a missing field from a bad one", () => {
    assert.equal(issuesOf(requests.executionId, {})[0]?.message, "this is missing");
    const bad = issuesOf(requests.executionId, { execution_id: 12 })[0];
    assert.equal(bad?.message, "this cannot be used");
  });

  it("take numbers as text, because a query string has nothing else", () => {
    const page = requests.checked(requests.executionsEvents, {
      execution_id: "7",
      page: "2",
      page_size: "10",
    });
    assert.deepEqual(page, { execution_id: "7", page: 2, page_size: 10 });
    assert.equal(requests.checked(requests.executionsList, { status: "failed" }).status, "FAILED");
  });

  it("bound pages, waits, ids and payloads", () => {
    issuesOf(requests.executionsEvents, { execution_id: "7", page_size: 100_000 });
    issuesOf(requests.executionsWait, { execution_id: "7", timeout_ms: 60_000 });
    issuesOf(requests.executionId, { execution_id: "1; drop table" });
    const large = { path: "a", payload: { x: "y".repeat(requests.LIMITS.payloadMaxBytes) } };
    const issue = issuesOf(requests.executionsStart, large)[0];
    assert.match(issue?.expected ?? "", /at most \d+ bytes/);
  });

  it("refuse anything but an object", () => {
    for (const request of [null, "x", 3, []]) issuesOf(requests.executionId, request);
  });

  it("reach a handler checked, with this and the context as they were", async () => {
    const service = { name: "me" };
    const action = requests.validated(
      requests.executionId,
      function (this: typeof service, ctx: { params: unknown; meta: string }, { execution_id }) {
        return Promise.resolve([this.name, ctx.meta, execution_id]);
      },
    );
    const answer = await action.call(service, { params: { execution_id: "7" }, meta: "m" });
    assert.deepEqual(answer, ["me", "m", "7"]);
    assert.throws(() => action.call(service, { params: { execution_id: "x" }, meta: "m" }), {
      type: "REJECTED",
      code: 422,
    });
  });
});
