// Limits among nodes: what is set at one, and what an upstream tells one, holds at the other.
import { strict as assert } from "node:assert";
import { until } from "../support/actors.ts";
import { startLimitedUpstream, type LimitedUpstream } from "../support/limited-upstream.ts";
import type { TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { TOOL_COMMAND } from "../support/tool-command.ts";

describe("limits of two nodes", function () {
  this.timeout(60_000);
  let nodes: TestNodes | undefined;
  let upstream: LimitedUpstream;
  let one: TestNode;
  let other: TestNode;

  before(async function () {
    nodes = await testNodes();
    if (!nodes) return this.skip();
    [one, other] = [await nodes.start(), await nodes.start({ roles: ["worker"] })];
    await nodes.acquainted();
  });
  beforeEach(async () => {
    upstream = await startLimitedUpstream(2, () => "30");
  });
  afterEach(() => upstream.close());
  after(() => nodes?.close());

  /** The status of one call by a node's tool, or BUSY. */
  async function get(node: TestNode, config: object = {}): Promise<unknown> {
    const request = { config: { url: upstream.url, ...config }, command: TOOL_COMMAND };
    try {
      const answer = await node.call<{ http: { status: number } }>("tool.http.run", request);
      return answer.http.status;
    } catch (error) {
      return (error as { type: string }).type;
    }
  }

  it("a limit that is set at one is met at the other, and so is its end", async () => {
    const target = `http:host:${upstream.host}`;
    const set = await one.call("limits.set", { target, rate: "1/h" });
    assert.deepEqual(set, { target, rate: "1/h burst 1" });
    await until(async () => (await get(other)) === "BUSY");
    const { limits } = await other.call<{ limits: { target: string }[] }>("limits.list");
    assert.deepEqual(
      limits.map(limit => limit.target),
      [target],
    );
    await other.call("limits.clear", { target });
    await until(async () => (await get(one)) !== "BUSY");
    await assert.rejects(one.call("limits.clear", { target }), { type: "REJECTED", code: 404 });
  });

  it("what an upstream asks of one node, all nodes do", async () => {
    assert.deepEqual([await get(one), await get(one), await get(one)], [200, 200, 429]);
    await until(async () => (await get(other)) === "BUSY");
    const { calls } = upstream.seen();
    assert.deepEqual([await get(one), await get(other)], ["BUSY", "BUSY"]);
    assert.equal(upstream.seen().calls, calls, "nobody has asked it again");
    const { paused } = await one.call<{ paused: { bucket: string }[] }>("limits.list");
    assert.deepEqual(
      paused.map(({ bucket }) => bucket),
      [`http:host:${upstream.host}`],
    );
  });

  it("a task's own limit counts for its task wherever it runs", async () => {
    const limit = { rate_limit: { rate: "1/h", per: "task" } };
    assert.deepEqual([await get(one, limit), await get(other, limit)], [200, "BUSY"]);
    assert.equal(await get(other), 200, "others are free");
  });
});
