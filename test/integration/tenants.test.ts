// Two tenants of one worker: one of them has far more work than its upstream takes.
import { strict as assert } from "node:assert";
import { until } from "../support/actors.ts";
import { startLimitedUpstream, type LimitedUpstream } from "../support/limited-upstream.ts";
import { ended, type TestNode } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";

const BUSY = 200;
const QUIET = 48;

const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: tenant, path: test/tenant}
workload: {api: "", n: 0}
workflow:
  - step: each
    loop:
      in: "{{ workload.n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: 64}
    tool: {kind: http, url: "{{ workload.api }}/{{ i }}"}
`;

describe("of two tenants", function () {
  this.timeout(120_000);
  let nodes: TestNodes | undefined;
  let server: TestNode;
  const upstreams: LimitedUpstream[] = [];

  before(async function () {
    nodes = await testNodes();
    if (!nodes) return this.skip();
    server = await nodes.start({ roles: ["server"] });
    await nodes.start({ roles: ["worker"] });
    await nodes.acquainted();
  });
  after(() => nodes?.close());
  afterEach(() => Promise.all(upstreams.splice(0).map(one => one.close())));

  async function upstream(): Promise<LimitedUpstream> {
    const made = await startLimitedUpstream(100_000);
    upstreams.push(made);
    return made;
  }

  /** How long so many calls of a tenant take, milliseconds. */
  async function take(tenant: string, { url }: LimitedUpstream, n: number): Promise<number> {
    const begun = performance.now();
    const start = { playbook: PLAYBOOK, payload: { api: url, n } };
    const meta = { tenant_id: tenant };
    const { execution_id } = await server.broker.call<{ execution_id: string }, object>(
      "executions.start",
      start,
      { meta },
    );
    assert.equal((await ended(server.broker, execution_id)).status, "COMPLETED");
    return performance.now() - begun;
  }

  it("the one that waits for its upstream leaves the other its share", async () => {
    const [slow, free] = [await upstream(), await upstream()];
    await server.call("limits.set", { target: `http:host:${slow.host}`, rate: "20/s" });
    const alone = await take("quiet", free, QUIET);
    const busy = take("busy", slow, BUSY);
    await until(() => slow.seen().calls >= 10);
    const beside = await take("quiet", free, QUIET);
    const left = BUSY - slow.seen().calls;
    const said = `${Math.round(alone)} ms alone, ${Math.round(beside)} ms beside the other`;
    process.stdout.write(`      ${QUIET} calls took ${said}, of which ${left} were left\n`);
    await busy;
    assert.ok(left > BUSY / 4, "it came to an end while much of the other's work was left");
  });
});
