// The guards of noetl.event: what can be only once is refused by the database itself.
import { strict as assert } from "node:assert";
import { idAtTime } from "../../schemas/ids.ts";
import { ask } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

interface Fact {
  event_type: string;
  meta: object;
  /** The other execution, when true. */
  elsewhere?: boolean;
}

interface Guard {
  index: string;
  first: Fact;
  refused: Fact[];
  allowed: Fact[];
}

const command = (event_type: string, command_id = "c1"): Fact => ({
  event_type,
  meta: { command_id },
});
const loop = (event_type: string, loop_id = "l1"): Fact => ({ event_type, meta: { loop_id } });
const end = (event_type: string, generation = 0): Fact => ({ event_type, meta: { generation } });

const guards: Guard[] = [
  {
    index: "uidx_event_command_issued_command_id",
    first: command("command.issued"),
    refused: [command("command.issued")],
    allowed: [
      command("command.issued", "c2"),
      command("command.claimed"),
      command("command.claimed"),
      { ...command("command.issued"), elsewhere: true },
    ],
  },
  {
    index: "uidx_event_command_terminal",
    first: command("command.completed"),
    refused: [
      command("command.completed"),
      command("command.failed"),
      command("command.cancelled"),
      command("loop.shard.done"),
      command("loop.shard.failed"),
    ],
    allowed: [
      command("command.failed", "c2"),
      command("command.issued"),
      command("command.expired"),
    ],
  },
  {
    index: "uidx_event_loop_done_loop_id",
    first: loop("loop.done"),
    refused: [loop("loop.done")],
    allowed: [loop("loop.done", "l2"), loop("loop.started"), loop("loop.fanin.completed")],
  },
  {
    index: "uidx_event_loop_fanin_completed_loop_id",
    first: loop("loop.fanin.completed"),
    refused: [loop("loop.fanin.completed")],
    allowed: [loop("loop.fanin.completed", "l2"), loop("loop.done")],
  },
  {
    index: "uidx_event_execution_terminal",
    first: end("playbook.completed"),
    refused: [end("playbook.completed"), end("playbook.failed"), end("execution.cancelled")],
    allowed: [
      end("playbook.failed", 1),
      end("execution.redriven"),
      { ...end("playbook.completed"), elsewhere: true },
    ],
  },
];

/** Executions of this week, and of long ago: those lie in the default partition. */
const places = [
  { where: "in a week's partition", id: BigInt(idAtTime(Date.now())) },
  { where: "in the default partition", id: BigInt(idAtTime(Date.UTC(2024, 1, 1))) },
];

describe("guards", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let next = 0n;
  before(async () => {
    database = await testDatabase({ migrated: true });
  });
  after(() => database.drop());

  /** Each fact on a stream of its own, so that no version stands in the way. */
  async function write(execution: bigint, fact: Fact): Promise<void> {
    next += 1n;
    await ask(
      database.url,
      `insert into noetl.event (execution_id, stream_id, version, event_id, event_type, meta)
       values ($1, $2, 1, $2, $3, $4)`,
      [execution + (fact.elsewhere ? 500_000n : 0n), next, fact.event_type, fact.meta],
    );
  }

  async function check(guard: Guard, execution: bigint): Promise<void> {
    await write(execution, guard.first);
    for (const fact of guard.refused) {
      await assert.rejects(write(execution, fact), { code: "23505" }, fact.event_type);
    }
    for (const fact of guard.allowed) await write(execution, fact);
  }

  for (const [index, guard] of guards.entries()) {
    for (const { where, id } of places) {
      it(`${guard.index} refuses a second fact and nothing else, ${where}`, () =>
        check(guard, id + BigInt(index + 1) * 1_000n));
    }
  }

  it("a version is taken once in its stream", async () => {
    const insert = `insert into noetl.event
                      (execution_id, stream_id, version, event_id, event_type, meta)
                    values ($1, $2, 1, 1, 'call.partial', '{}')`;
    const [{ id }] = places as [(typeof places)[0]];
    await ask(database.url, insert, [id, 1n << 40n]);
    await assert.rejects(ask(database.url, insert, [id, 1n << 40n]), { code: "23505" });
  });

  for (const [index, guard] of guards.entries()) {
    it(`sabotage: without ${guard.index} its check fails`, async () => {
      const { id } = places[0] as (typeof places)[0];
      await ask(database.url, `drop index noetl.${guard.index}`);
      await assert.rejects(check(guard, id + BigInt(index + 100) * 1_000n), {
        message: /Missing expected rejection/,
      });
    });
  }
});
