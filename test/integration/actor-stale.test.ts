// Design §5 rules 2 and 4 for claims, outcomes and releases: a server that lags behind refuses
// nothing that is valid, and a claim whose answer was lost is answered again by any of them.
import { strict as assert } from "node:assert";
import type { StreamName } from "../../mixins/event-store.ts";
import { logOf, startProcess, type TestProcess } from "../support/actors.ts";
import {
  claimant,
  claimItem,
  itemOf,
  loopHost,
  OK,
  reportItem,
  startLoop,
  type LoopHost,
  type LoopOptions,
} from "../support/loop-scene.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { forgetsClaims, withoutProof } from "../support/sabotage.ts";

describe("actors: servers that lag behind", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let one: TestProcess;
  let two: TestProcess;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url);
    two = await startProcess(database.url);
  });
  after(async () => {
    await one.stop();
    await two.stop();
    await database.drop();
  });

  /** A host that knows a loop as it began, and another one that goes on with it. */
  interface Scene extends StreamName {
    stale: LoopHost;
    fresh: LoopHost;
  }
  async function scene(options: LoopOptions = {}): Promise<Scene> {
    const stale = loopHost(one, options);
    const fresh = loopHost(two);
    const stream = await startLoop(one, stale);
    return { ...stream, stale, fresh };
  }

  const released = (host: LoopHost, at: Scene, delivery: number) =>
    host.send(at, {
      type: "release",
      command_id: itemOf(at, 0),
      delivery,
      worker_id: "tester",
    });

  /** What is valid on the newer state only, by name. */
  const VALID: [string, (options?: LoopOptions) => Promise<void>][] = [
    [
      "a claim of a command it has not heard of",
      async options => {
        const at = await scene(options);
        await claimItem(at.fresh, at, 0);
        await reportItem(at.fresh, at, 0);
        assert.equal((await claimItem(at.stale, at, 2))?.iteration?.value, "c");
      },
    ],
    [
      "an outcome of a claim it has not heard of",
      async options => {
        const at = await scene(options);
        await claimItem(at.fresh, at, 0);
        assert.equal((await reportItem(at.stale, at, 0)).changed, true);
      },
    ],
    [
      "an outcome of a later delivery than it knows",
      async options => {
        const at = await scene(options);
        await claimItem(at.stale, at, 0);
        await released(at.fresh, at, 1);
        await claimItem(at.fresh, at, 0);
        assert.equal((await reportItem(at.stale, at, 0, { delivery: 2 })).changed, true);
      },
    ],
    [
      "a claim of a command that another server has given back",
      async options => {
        const at = await scene(options);
        await claimItem(at.stale, at, 0);
        await released(at.fresh, at, 1);
        assert.equal((await claimItem(at.stale, at, 0))?.delivery, 2);
      },
    ],
    [
      "a release of a claim it has not heard of",
      async options => {
        const at = await scene(options);
        await claimItem(at.fresh, at, 0);
        assert.equal((await released(at.stale, at, 1)).changed, true);
      },
    ],
  ];

  for (const [what, valid] of VALID) {
    it(`a stale server does not refuse ${what}`, () => valid());

    it(`sabotage: without proof it refuses ${what}`, () =>
      assert.rejects(valid({ store: withoutProof }), { type: "REJECTED" }));
  }

  it("a zombie's outcome is refused by the stale and by the fresh one", async () => {
    const at = await scene();
    await claimItem(at.stale, at, 0);
    await released(at.fresh, at, 1);
    await claimItem(at.fresh, at, 0);
    const fenced = { type: "REJECTED", data: { reason: "fenced", delivery: 2 } };
    await assert.rejects(reportItem(at.stale, at, 0), fenced);
    await assert.rejects(reportItem(at.fresh, at, 0), fenced);
  });

  /** The answer was lost: the same claim again, here, there, and on both at once. */
  async function repeated(machine?: LoopOptions["machine"]): Promise<void> {
    const hosts = [one, two].map(process => loopHost(process, { ...(machine && { machine }) }));
    const stream = await startLoop(one, hosts[0]!);
    const by = claimant();
    const first = await claimItem(hosts[0]!, stream, 0, by);
    const since = performance.now();
    const again = [await claimItem(hosts[1]!, stream, 0, by)];
    again.push(await claimItem(hosts[0]!, stream, 0, by));
    again.push(...(await Promise.all(hosts.map(host => claimItem(host, stream, 0, by)))));
    const tookMs = performance.now() - since;
    assert.deepEqual(again, Array(4).fill(first));
    assert.equal(first?.delivery, 1);
    assert.ok(tookMs < 2_000, `at once, not in ${tookMs} ms`);
    const claims = (await logOf(database.url, stream)).filter(
      row => row.event_type === "command.claimed",
    );
    assert.equal(claims.length, 1, "and no new fact");
    await assert.rejects(claimItem(hosts[1]!, stream, 0, { ...by, claim_id: "another" }), {
      type: "REJECTED",
      data: { reason: "held" },
    });
  }

  it("a claim whose answer was lost is answered again by any server: same grant, no new fact", () =>
    repeated());

  it("sabotage: servers that do not know a claim again refuse it", () =>
    assert.rejects(repeated(forgetsClaims()), { type: "REJECTED", data: { reason: "held" } }));

  /** A report that took the next command along, and whose answer was lost. */
  async function handedOver(options: LoopOptions = {}): Promise<void> {
    const at = await scene(options);
    await claimItem(at.fresh, at, 0);
    const next = claimant();
    const first = await reportItem(at.fresh, at, 0, { next });
    assert.equal(first.grant?.iteration?.value, "c");
    const again = await Promise.all([
      reportItem(at.stale, at, 0, { next }),
      reportItem(at.fresh, at, 0, { next }),
    ]);
    for (const answer of again) assert.deepEqual(answer.grant, first.grant);
    const outcome = { command_id: itemOf(at, 0), delivery: 1, worker_id: "tester", result: OK };
    const other = { type: "outcome" as const, ...outcome, next: claimant() };
    await assert.rejects(at.stale.send(at, other), { data: { reason: "settled" } });
  }

  it("a report whose answer was lost is answered again with the command it handed over", () =>
    handedOver());

  it("sabotage: without proof a stale server refuses that report", () =>
    assert.rejects(handedOver({ store: withoutProof }), { type: "REJECTED" }));
});
