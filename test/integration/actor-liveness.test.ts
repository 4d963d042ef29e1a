// Design §5 rules 4 and 5: claims are repeatable, and only a dead worker's command is lost.
import { strict as assert } from "node:assert";
import { randomUUID } from "node:crypto";
import { beat, forgetWorkers, markGone } from "../../mixins/postgres/runtime.ts";
import type { EventStore, StreamName } from "../../mixins/event-store.ts";
import type { NewEvent, OutcomeResult } from "../../schemas/events.ts";
import { commandId } from "../../schemas/ids.ts";
import type { Json } from "../../schemas/json.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { CATALOG_PREFIX } from "../../schemas/playbook/stored-result.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import type { LoopAnswer, LoopInput } from "../../schemas/loop-turns.ts";
import type { LoopState } from "../../services/loops/state.ts";
import {
  ask,
  logOf,
  startProcess,
  type HostOptions,
  type TestHost,
  type TestProcess,
} from "../support/actors.ts";
import { HEAD } from "../support/playbook-samples.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

type LoopHost = TestHost<LoopInput, LoopAnswer, LoopState>;
type Options = Partial<HostOptions<LoopState, LoopInput, LoopAnswer>>;

const LEASE_MS = 30_000;
const SILENCE_MS = 300_000;
const PIN = { path: "demo/one", version: 1, hash: "abc" };
const LOOPING = `${HEAD}workflow:
  - step: each
    loop: {in: "{{ workload.items }}", iterator: item, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: noop}
`;
const OK: OutcomeResult = { status: "ok", context: null };

/** One running loop of three items, two of which are open, and a worker with a row. */
interface Scene extends StreamName {
  host: LoopHost;
  worker: { worker_id: string; incarnation: string };
  first: string;
}

describe("actors: claims and liveness", function () {
  this.timeout(30_000);
  let database: TestDatabase;
  let one: TestProcess;
  before(async () => {
    database = await testDatabase({ migrated: true });
    one = await startProcess(database.url);
  });
  after(async () => {
    await one.stop();
    await database.drop();
  });
  afterEach(() => {
    one.clock.shift_ms = 0;
  });

  function loopHost(options: Options = {}): LoopHost {
    const playbook = parsePlaybook(LOOPING) as unknown as Json;
    const loaded = new Map([[`${CATALOG_PREFIX}${PIN.path}@${PIN.version}#${PIN.hash}`, playbook]]);
    return one.host({ machine: loopMachine, loaded, ...options });
  }

  async function scene(options: Options = {}): Promise<Scene> {
    const host = loopHost(options);
    const execution_id = one.ids.next();
    const loop_id = one.ids.next();
    const worker = { worker_id: `w-${execution_id}`, incarnation: randomUUID() };
    await beat(one.database, { ...worker, machine: "m", pid: 1, capacity: {} }, "ready");
    await host.send(
      { execution_id, stream_id: loop_id },
      {
        type: "start",
        execution_id,
        loop_id,
        step: "each",
        activation: 1,
        playbook: PIN,
        scope: {
          execution: { id: execution_id, path: PIN.path },
          workload: { items: ["a", "b", "c"] },
          ctx: {},
          steps: {},
        },
      },
    );
    const first = commandId({
      execution_id,
      step: "each",
      activation: 1,
      iter_index: 0,
      attempt: 1,
    });
    return { host, execution_id, stream_id: loop_id, worker, first };
  }

  const claim = (at: Scene, claim_id: string, host = at.host) =>
    host.send(at, { type: "claim", command_id: at.first, claim_id, ...at.worker });
  const wake = (at: Scene) => at.host.send(at, { type: "wake" });
  const outcome = (at: Scene, delivery: number, worker_id = at.worker.worker_id) =>
    at.host.send(at, { type: "outcome", command_id: at.first, delivery, worker_id, result: OK });
  const seenAgo = (at: Scene, ms: number) =>
    ask(
      database.url,
      `update noetl.runtime
       set seen_at = clock_timestamp() - make_interval(secs => $2::float / 1000)
       where incarnation = $1`,
      [at.worker.incarnation, ms],
    );
  const count = async (at: Scene, type: string) =>
    (await logOf(database.url, at)).filter(row => row.event_type === type).length;

  async function repeated(options?: Options): Promise<void> {
    const at = await scene(options);
    const { grant } = await claim(at, "c1");
    assert.equal(grant?.delivery, 1);
    assert.deepEqual((await claim(at, "c1")).grant, grant, "the same again");
    assert.deepEqual(
      (await claim(at, "c1", loopHost(options))).grant,
      grant,
      "also from a new owner",
    );
    await assert.rejects(claim(at, "c2"), { type: "REJECTED", data: { reason: "held" } });
    assert.equal(await count(at, "command.claimed"), 1, "one fact");
  }

  it("the same claim has the same grant and no new fact; another claim is refused", () =>
    repeated());

  it("sabotage: a machine that does not know a claim again refuses it", () => {
    let claims = 0;
    const machine: typeof loopMachine = {
      ...loopMachine,
      decide(input, state, context) {
        const again = input.type === "claim" && (claims += 1) > 1;
        const changed = again ? { ...input, claim_id: randomUUID() } : input;
        return loopMachine.decide(changed, state, context);
      },
    };
    return assert.rejects(repeated({ machine }), { type: "REJECTED" });
  });

  /** The lease has passed, but the worker's row is fresh. */
  async function longWork(store?: (inner: EventStore) => EventStore): Promise<void> {
    const at = await scene({ store });
    await claim(at, "c1");
    one.clock.shift_ms = LEASE_MS * 3;
    await seenAgo(at, 5_000 - one.clock.shift_ms);
    await wake(at);
    assert.equal(await count(at, "command.expired"), 0);
    await outcome(at, 1);
  }

  it("a command whose lease has passed lives on while its worker's row is fresh", () => longWork());

  it("sabotage: where the row is not asked the command is lost", () =>
    assert.rejects(
      longWork(inner => ({
        ...inner,
        readSeen: async holders => new Map(holders.map(one => [one.incarnation, "gone"])),
      })),
      { name: "AssertionError" },
    ));

  /** The worker was last seen longer ago than a lease. */
  async function deadWorker(store?: (inner: EventStore) => EventStore): Promise<void> {
    const at = await scene({ store });
    await claim(at, "c1");
    one.clock.shift_ms = LEASE_MS + 2_000;
    await seenAgo(at, 0);
    await wake(at);
    assert.equal(await count(at, "command.expired"), 1);
    await assert.rejects(outcome(at, 1), {
      type: "REJECTED",
      data: { reason: "fenced", delivery: 1 },
    });
    assert.equal((await claim(at, "c2")).grant?.delivery, 2);
  }

  it("a command expires when its worker's row is older than the lease, and is fenced", () =>
    deadWorker());

  it("sabotage: where every row counts as fresh it never expires", () =>
    assert.rejects(
      deadWorker(inner => ({
        ...inner,
        readSeen: async holders => new Map(holders.map(one => [one.incarnation, Date.now() + 1e9])),
      })),
      { name: "AssertionError" },
    ));

  it("a command of an incarnation that is gone expires at once", async () => {
    const at = await scene();
    await claim(at, "c1");
    await wake(at);
    assert.equal(await count(at, "command.expired"), 0);
    await markGone(one.database, [at.worker.incarnation]);
    await wake(at);
    assert.equal(await count(at, "command.expired"), 1);
  });

  it("a command of an incarnation whose name another one has taken expires at once", async () => {
    const at = await scene();
    await claim(at, "c1");
    const restarted = { ...at.worker, incarnation: randomUUID() };
    await beat(one.database, { ...restarted, machine: "m", pid: 2, capacity: {} }, "ready");
    await wake(at);
    assert.equal(await count(at, "command.expired"), 1);
  });

  /** The worker talks HTTP only: there is no row of it, and there never was. */
  async function silent(store?: (inner: EventStore) => EventStore): Promise<void> {
    const at = await scene({ store });
    await forgetWorkers(one.database, -1);
    await claim(at, "c1");
    for (const ms of [0, LEASE_MS + 2_000, SILENCE_MS - 2_000]) {
      one.clock.shift_ms = ms;
      await wake(at);
      assert.equal(await count(at, "command.expired"), 0, `${ms} ms after the claim`);
    }
    one.clock.shift_ms = SILENCE_MS + 2_000;
    await wake(at);
    assert.equal(await count(at, "command.expired"), 1);
    await assert.rejects(outcome(at, 1), { data: { reason: "fenced", delivery: 1 } });
  }

  it("a command whose worker never had a row expires by the hard limit only", () => silent());

  it("sabotage: where no row means gone it is lost in its first wake", () =>
    assert.rejects(
      silent(inner => ({
        ...inner,
        async readSeen(holders) {
          const rows = await inner.readSeen(holders);
          return new Map(
            holders.map(one => [one.incarnation, rows.get(one.incarnation) ?? "gone"]),
          );
        },
      })),
      { name: "AssertionError" },
    ));

  it("a claim and a wake of the same turn: the claim's worker is not taken for dead", async () => {
    const at = await scene();
    await Promise.all([claim(at, "c1"), wake(at), wake(at)]);
    assert.equal(await count(at, "command.expired"), 0);
  });

  it("a worker that says it does not hold a command gives it back uncharged", async () => {
    const asked: string[][] = [];
    const at = await scene({
      holds: async (_worker, _incarnation, ids) => {
        asked.push(ids);
        return [];
      },
    });
    await claim(at, "c1");
    await wake(at);
    assert.deepEqual(asked, [], "not before the lease has passed");
    one.clock.shift_ms = LEASE_MS + 2_000;
    await seenAgo(at, -one.clock.shift_ms);
    await wake(at);
    assert.deepEqual(asked, [[at.first]]);
    assert.equal(await count(at, "command.released"), 1);
    assert.equal(await count(at, "command.expired"), 0);
  });

  it("while a silent worker is waited for, the living ones do not grow silent", async () => {
    const living = { worker_id: `w-${randomUUID()}`, incarnation: randomUUID() };
    await beat(one.database, { ...living, machine: "m", pid: 1, capacity: {} }, "ready");
    const at = await scene({
      holds: async (worker_id, _incarnation, ids) => {
        if (worker_id === living.worker_id) return ids;
        one.clock.shift_ms += LEASE_MS / 2;
        await seenAgo({ ...at, worker: living }, -one.clock.shift_ms);
        return undefined;
      },
    });
    const { execution_id } = at;
    const name = { execution_id, step: "each", activation: 1, iter_index: 1, attempt: 1 };
    await claim(at, "c1");
    await claim({ ...at, worker: living, first: commandId(name) }, "c2");
    one.clock.shift_ms = LEASE_MS * 3;
    await seenAgo({ ...at, worker: living }, LEASE_MS / 2 + 1_000 - one.clock.shift_ms);
    await wake(at);
    const lost = (await logOf(database.url, at)).filter(
      row => row.event_type === "command.expired",
    );
    assert.deepEqual(
      lost.map(row => row.meta["worker_id"]),
      [at.worker.worker_id],
    );
  });

  it("a command of a silent worker that disowns it is not both given back and lost", async () => {
    const at = await scene({ holds: async () => [] });
    await claim(at, "c1");
    one.clock.shift_ms = LEASE_MS + 2_000;
    await wake(at);
    assert.equal((await count(at, "command.released")) + (await count(at, "command.expired")), 1);
  });

  it("after an outage of the database a worker has one lease to show that it lives", async () => {
    let away = false;
    const at = await scene({
      store: inner => ({
        ...inner,
        readSeen(holders) {
          if (!away) return inner.readSeen(holders);
          away = false;
          return Promise.reject(Object.assign(new Error("away"), { type: "UNAVAILABLE" }));
        },
      }),
    });
    await claim(at, "c1");
    one.clock.shift_ms = LEASE_MS * 4;
    away = true;
    await wake(at);
    assert.equal(await count(at, "command.expired"), 0, "nobody could beat while it was away");
    one.clock.shift_ms += LEASE_MS + 2_000;
    await wake(at);
    assert.equal(await count(at, "command.expired"), 1);
  });

  /** Given back many times, then killed as often as `max_attempts` allows. */
  async function deaths(evolve = loopMachine.evolve): Promise<void> {
    const at = await scene({ machine: { ...loopMachine, evolve } });
    for (let delivery = 1; delivery <= 5; delivery += 1) {
      assert.equal((await claim(at, `r${delivery}`)).grant?.delivery, delivery);
      const { worker_id } = at.worker;
      await at.host.send(at, { type: "release", command_id: at.first, delivery, worker_id });
    }
    for (let death = 1; death <= 3; death += 1) {
      const incarnation = randomUUID();
      const worker = { ...at.worker, incarnation };
      await beat(one.database, { ...worker, machine: "m", pid: 1, capacity: {} }, "ready");
      await claim({ ...at, worker }, `d${death}`);
      await markGone(one.database, [incarnation]);
      await wake(at);
      assert.equal(await count(at, "command.expired"), death);
      assert.equal(await count(at, "command.failed"), death === 3 ? 1 : 0, `after death ${death}`);
    }
    const failed = await ask<{ code: string }>(
      database.url,
      `select result->'error'->>'code' as code from noetl.event
       where execution_id = $1 and event_type = 'command.failed'`,
      [at.execution_id],
    );
    assert.deepEqual(failed, [{ code: "WORKER_LOST" }]);
  }

  it("max_attempts counts the deaths of workers only: what is given back is uncharged", () =>
    deaths());

  it("sabotage: where a release counts as a death the command fails too early", () =>
    assert.rejects(
      deaths((state, event, at, version) => {
        const asDeath = { ...event, event_type: "command.expired" } as NewEvent;
        const released = event.event_type === "command.released";
        return loopMachine.evolve(state, released ? asDeath : event, at, version);
      }),
      { name: "AssertionError" },
    ));
});
