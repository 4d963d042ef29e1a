// Two processes append groups of the same streams, each in its own order: nobody waits in a circle.
import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { ask, newStream, startProcess } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { ROOT } from "../support/source-files.ts";

interface Told {
  committed: number;
  conflict: number;
  refused: number;
  statements: number;
  /** Statements sent again after a deadlock. */
  repeats: number;
  took_ms: number;
}

const STREAMS = 8;
/** Groups of appends, of both processes together. */
const GROUPS = 10_000;

describe("processes that append in opposite orders", function () {
  this.timeout(90_000);
  let database: TestDatabase;
  before(async () => {
    database = await testDatabase({ migrated: true });
    // A deadlock is found at once, or the sabotage would take long.
    const [{ name } = { name: "" }] = await ask<{ name: string }>(
      database.url,
      "select current_database() as name",
    );
    await ask(database.url, `alter database ${name} set deadlock_timeout = '5ms'`);
  });
  after(() => database.drop());

  async function begin(order: string, rounds: number, ids: string[]) {
    const entry = join(ROOT, "test/support/append-entry.ts");
    const args = [entry, database.url, `${rounds}`, order, ...ids];
    const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    const late = setTimeout(() => child.kill("SIGKILL"), 80_000);
    child.once("exit", () => clearTimeout(late));
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, "ready");
    return {
      async go(): Promise<Told> {
        child.stdin.write("go\n");
        return JSON.parse((await lines.next()).value ?? "null") as Told;
      },
    };
  }

  async function crossed(orders: string[], rounds: number): Promise<Told[]> {
    const one = await startProcess(database.url);
    const ids = Array.from({ length: STREAMS }, () => newStream(one).stream_id);
    await one.stop();
    const processes = await Promise.all(orders.map(order => begin(order, rounds, ids)));
    const told = await Promise.all(processes.map(process => process.go()));
    for (const each of told) {
      process.stdout.write(`      ${JSON.stringify(each)}\n`);
      assert.equal(each.refused, 0);
      assert.equal(each.committed + each.conflict, rounds * STREAMS, "each append was answered");
    }
    const broken = await ask(
      database.url,
      `select stream_id, version, events, most from noetl.stream s
       join lateral (
         select count(*)::integer as events, max(e.version) as most,
                count(distinct e.version)::integer as versions
         from noetl.event e where e.execution_id = s.execution_id and e.stream_id = s.stream_id
       ) log on true
       where s.stream_id = any ($1) and not (events = s.version and most = s.version
             and versions = s.version)`,
      [ids],
    );
    assert.deepEqual(broken, [], "versions are 1 to n, and the head says n");
    const committed = told.reduce((sum, each) => sum + each.committed, 0);
    const [row] = await ask<{ n: number }>(
      database.url,
      "select sum(version)::integer as n from noetl.stream where stream_id = any ($1)",
      [ids],
    );
    assert.equal(row?.n, committed);
    return told;
  }

  it("never deadlock, and leave no gap between versions", async () => {
    const told = await crossed(["up", "down"], GROUPS / 2);
    assert.equal(
      told.reduce((sum, each) => sum + each.repeats, 0),
      0,
      "no deadlock",
    );
    const conflicts = told.reduce((sum, each) => sum + each.conflict, 0);
    assert.ok(conflicts > GROUPS / 10, `they met: ${conflicts} conflicts`);
  });

  it("sabotage: where one of them locks heads in its own order they do", async () => {
    const told = await crossed(["up", "sabotaged"], 500);
    const repeats = told.reduce((sum, each) => sum + each.repeats, 0);
    assert.ok(repeats > 0, "no deadlock was seen");
  });
});
