// Servers and workers need no more of NATS than `k8s/nats-permissions.conf` lets them do.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { loadSettings } from "../../schemas/env.ts";
import { ended } from "../support/node.ts";
import { testNodes, type TestNodes } from "../support/nodes.ts";

const CONFIG = new URL("../../k8s/nats-permissions.conf", import.meta.url);
const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: permitted, path: test/permitted}
workflow:
  - step: each
    loop:
      in: 20
      iterator: i
      spec: {mode: parallel, max_in_flight: 5, policy: {exec: distributed}}
    tool: {kind: noop}
    next: {arcs: [{step: frames}]}
  - step: frames
    loop: {in: 100, iterator: i, spec: {mode: parallel, max_in_flight: 5}}
    tool: {kind: noop}
`;

describe("the permissions of k8s/nats-permissions.conf", function () {
  this.timeout(60_000);
  let nodes: TestNodes;

  afterEach(() => nodes?.close());

  /** What nats-server has refused, as its log tells it. */
  async function refused(config: string, env: Record<string, string> = {}) {
    const made = await testNodes({ config });
    if (!made) return undefined;
    nodes = made;
    const { node, nats } = loadSettings({});
    const names = { NOETL_NAMESPACE: node.namespace, NATS_SUBJECT: nats.subject, ...env };
    const login = (user: string) => ({ ...names, NATS_USER: user, NATS_PASSWORD: "secret" });
    const server = await nodes.start({ roles: ["server", "api"], env: login("noetl-server") });
    await nodes.start({ roles: ["worker"], env: login("noetl-worker") });
    await nodes.acquainted();
    const { execution_id } = await server.call<{ execution_id: string }>("executions.start", {
      playbook: PLAYBOOK,
    });
    assert.equal((await ended(server.broker, execution_id)).status, "COMPLETED");
    return new Set(nodes.nats.log().match(/(Publish|Subscription) Violation.*/g));
  }

  const permitted = readFileSync(CONFIG, "utf8").replaceAll(
    /\$NOETL_(SERVER|WORKER)_PASSWORD/g,
    '"secret"',
  );

  for (const transport of ["call", "nats"]) {
    it(`are enough with outcomes by ${transport}`, async function () {
      const found = await refused(permitted, { NOETL_EVENT_TRANSPORT: transport });
      if (!found) return this.skip();
      assert.deepEqual([...found], []);
    });
  }

  it("are seen to be missing by this test", async function () {
    const less = permitted.replace('"noetl.commands.knock.>", ', "");
    const found = await refused(less);
    if (!found) return this.skip();
    assert.match([...found].join(), /Subscription Violation - Subject "noetl\.commands\.knock/);
  });
});
