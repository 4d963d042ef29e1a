/** The capacity gate: thresholds, blocking, waking, aborts, faults of providers, reservations. */
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { createClock } from "../../mixins/clock.ts";
import { parseQuantity } from "../../mixins/kubernetes.ts";
import { createMetrics } from "../../mixins/metrics.ts";
import { createLocalDoorbell } from "../../mixins/notifications.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { Asked } from "../../services/worker/gate/asked.ts";
import { countGates } from "../../services/worker/gate/count.ts";
import { CapacityGate } from "../../services/worker/gate/gate.ts";
import type { Gates } from "../../services/worker/gate/open.ts";
import type { CapacityProvider } from "../../services/worker/gate/provider.ts";
import { Watched } from "../../services/worker/gate/watched.ts";
import { Ledger } from "../../services/worker/ledger.ts";
import { pullClass } from "../../services/worker/puller.ts";
import { startRecord } from "../../services/worker/start-record.ts";
import { freeOf, usable } from "../../schemas/capacity.ts";
import { loadSettings } from "../../schemas/env.ts";
import { until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";

const clock = createClock();
/** SOAK_ROUNDS=1000000 is an hour or so of it. */
const SOAK_ROUNDS = Number(process.env["SOAK_ROUNDS"] ?? 2_000);
const { signal: never } = new AbortController();

interface World {
  onError?: "closed" | "open";
  staleMs?: number;
  minFree?: number;
  slots?: number;
  peers?: number;
  errorGraceMs?: number;
}

/** A gate over these providers, with what it has logged. */
function gateOver(providers: CapacityProvider[], world: World = {}) {
  const ledger = new Ledger({ all: world.slots ?? 8, database: 4 });
  const said: string[] = [];
  const log = (fields: object, message: string) =>
    void said.push(`${message} ${JSON.stringify(fields)}`);
  const settings = { staleMs: world.staleMs ?? 0, onError: world.onError ?? "closed" };
  const watched = providers.map(provider => {
    const asked = new Asked(provider, { clock, settings, peers: () => world.peers ?? 1 });
    const limits = { errorGraceMs: world.errorGraceMs ?? 300_000, maxBlockMs: 0 };
    const logger = { info: log, warn: log };
    return new Watched(asked, { consumer: "general", clock, settings: limits, log: logger });
  });
  const slots = {
    reserve: (signal: AbortSignal) => ledger.reserve("general", signal),
    takeOne: (signal: AbortSignal) => ledger.takeOne("general", signal),
    unreserve: (count: number) => ledger.unreserve("general", count),
  };
  const timing = { pollMs: 40, minFree: world.minFree ?? 1 };
  const gate = new CapacityGate({ clock, slots, providers: watched, settings: timing });
  return { gate, ledger, watched, said };
}

/** A target of which `used` changes, and that tells of it when `isTelling`. */
function target(limit: number, used: number, { ratio = 1, isTelling = false } = {}) {
  const wakes = new Set<() => void>();
  const state = { used, asked: 0 };
  return {
    get asked() {
      return state.asked;
    },
    set(now: number) {
      state.used = now;
      for (const wake of wakes) wake();
    },
    get listeners() {
      return wakes.size;
    },
    provider: {
      name: "target",
      snapshot: () => {
        state.asked += 1;
        return Promise.resolve(freeOf({ limit, used: state.used }, ratio));
      },
      ...(isTelling && {
        onChange: (wake: () => void) => {
          wakes.add(wake);
          return () => wakes.delete(wake);
        },
      }),
    } satisfies CapacityProvider,
  };
}

describe("the threshold of a gate", () => {
  for (const [limit, ratio, used, isOpen] of [
    [150, 0.95, 141, true],
    [150, 0.95, 142, false],
    [150, 0.95, 143, false],
    [5, 0.95, 3, true],
    [5, 0.95, 4, false],
    [100, 0.8, 79, true],
    [100, 0.8, 80, false],
    [75, 0.95, 70, true],
    [75, 0.95, 71, false],
    [1, 0.95, 0, true],
    [1, 0.95, 1, false],
  ] as const) {
    it(`${used} of ${limit} at ${ratio} is ${isOpen ? "open" : "closed"}`, () => {
      assert.equal(freeOf({ limit, used }, ratio).free > 0, isOpen);
    });
  }

  it("a limit of nothing, or that is no number, is a mistake and not a wait", () => {
    for (const limit of [0, -1, NaN, Infinity]) assert.throws(() => usable(limit, 0.95), /admits/);
    assert.throws(() => freeOf({ limit: 5, used: -1 }, 1), /makes no sense/);
  });

  it("a ratio outside its range, and words that mean nothing, refuse the start", () => {
    const refused = (env: Record<string, string>) => assert.throws(() => loadSettings(env));
    for (const ratio of ["0", "-1", "1.1", "NaN"]) {
      refused({ NOETL_PREFETCH_CAPACITY_RATIO: ratio });
      refused({ BACKPRESSURE_CAPACITY_RATIO: ratio });
    }
    refused({ NOETL_PREFETCH_GATE: "k9s" });
    for (const gate of ["http", "quota", "k8s"]) refused({ NOETL_PREFETCH_GATE: gate });
    refused({ BACKPRESSURE_QUOTA_NAME: "workflow-quota" });
  });

  it("the names of Argo Events are accepted, and our own win", () => {
    const { prefetch } = loadSettings({
      BACKPRESSURE_QUOTA_NAME: "workflow-quota",
      BACKPRESSURE_CAPACITY_RATIO: "0.8",
      BACKPRESSURE_POLL_INTERVAL: "30",
      NOETL_PREFETCH_CAPACITY_RATIO: "0.9",
      KUBERNETES_SERVICE_HOST: "10.0.0.1",
    });
    assert.deepEqual(
      [prefetch.quotaName, prefetch.ratio, prefetch.pollMs],
      ["workflow-quota", 0.9, 30_000],
    );
    assert.equal(loadSettings({}).prefetch.ratio, 0.95);
  });

  it("quantities are read as Kubernetes writes them", () => {
    const texts = ["75", "1500m", "2k", "1Gi", "1e3", "", "x", "1Q"];
    assert.deepEqual(texts.map(parseQuantity), [75, 1.5, 2_000, 2 ** 30, 1_000, NaN, NaN, NaN]);
  });
});

describe("a gate", () => {
  it("with room gives all free slots at once, without a timer", async () => {
    const timers: number[] = [];
    const { after } = clock;
    const { gate } = gateOver([]);
    clock.after = (ms, work) => {
      timers.push(ms);
      return after(ms, work);
    };
    const begun = performance.now();
    const { budget } = await gate.acquire(never);
    clock.after = after;
    assert.ok(performance.now() - begun < 5);
    assert.deepEqual([budget, timers], [8, []]);
  });

  it("gives no more than the tightest provider has, and keeps no slot beyond", async () => {
    const { gate, ledger } = gateOver([target(100, 0).provider, target(10, 7).provider]);
    const admission = await gate.acquire(never);
    assert.deepEqual([admission.budget, ledger.free()], [3, 5]);
    admission.release(3);
    assert.equal(ledger.free(), 8);
  });

  it("that is full keeps no slot, and opens at once when it is told of room", async () => {
    const full = target(4, 4, { isTelling: true });
    const { gate, ledger, watched, said } = gateOver([full.provider]);
    const acquired = gate.acquire(never);
    await until(() => watched[0]?.blocked);
    assert.equal(ledger.free(), 8);
    const begun = performance.now();
    full.set(1);
    assert.equal((await acquired).budget, 3);
    assert.ok(performance.now() - begun < 100);
    assert.deepEqual(
      said.map(line => line.replace(/,"blocked_ms":\d+/, "")),
      [
        'prefetch.blocked {"consumer":"general","provider":"target","limit":4,"used":4,"free":0}',
        'prefetch.open {"consumer":"general","provider":"target","limit":4,"used":1,"free":3}',
      ],
    );
    assert.equal(full.listeners, 0);
  });

  it("that nobody tells looks again by itself, and is closed in the log once", async () => {
    const full = target(4, 4);
    const { gate, said } = gateOver([full.provider]);
    const acquired = gate.acquire(never);
    await until(() => full.asked > 4);
    const begun = performance.now();
    full.set(0);
    assert.equal((await acquired).budget, 4);
    assert.ok(performance.now() - begun < 500, "a poll of 40 ms, its jitter, and a slow machine");
    assert.equal(said.filter(line => line.startsWith("prefetch.blocked")).length, 1);
  });

  it("that has closed opens only when so much is free as it is told", async () => {
    const full = target(10, 10, { isTelling: true });
    const { gate, watched } = gateOver([full.provider], { minFree: 3 });
    const acquired = gate.acquire(never);
    await until(() => watched[0]?.blocked);
    full.set(8);
    await until(() => full.asked > 3);
    assert.equal(watched[0]?.blocked, true);
    full.set(7);
    assert.equal((await acquired).budget, 3);
  });

  for (const [moment, abortAfterMs] of [
    ["before it is asked", 0],
    ["while it waits", 120],
  ] as const) {
    it(`aborted ${moment} ends within 50 ms, keeps no slot and no listener`, async () => {
      const full = target(4, 4, { isTelling: true });
      const { gate, ledger } = gateOver([full.provider]);
      const ends = new AbortController();
      const acquired = gate.acquire(ends.signal).then(
        () => "acquired",
        () => "aborted",
      );
      if (abortAfterMs > 0) await until(() => full.asked > 1);
      const begun = performance.now();
      ends.abort();
      assert.equal(await acquired, "aborted");
      assert.ok(performance.now() - begun < 50);
      assert.deepEqual([full.listeners, ledger.free()], [0, 8]);
    });
  }

  it("aborted between its leave and the pull lets nobody pull, and keeps nothing", async () => {
    const shared = target(4, 0);
    let released = 0;
    const provider: CapacityProvider = {
      ...shared.provider,
      reserve: count => Promise.resolve(count),
      release: count => void (released += count),
    };
    const { gate, ledger } = gateOver([provider]);
    const ends = new AbortController();
    const { acquire } = gate;
    gate.acquire = async signal => {
      const admission = await acquire.call(gate, signal);
      ends.abort();
      return admission;
    };
    let pulls = 0;
    const pull = () => {
      pulls += 1;
      return Promise.resolve([]);
    };
    const doorbell = { ...createLocalDoorbell(), look: pull, fetch: pull };
    const ports = { clock, doorbell, ledger, gate, link: {} as ServerLink, isGated: true };
    const nothing = () => assert.fail("nothing was pulled");
    await pullClass(
      "general",
      { ...ports, take: nothing, pulled: nothing, failed: nothing },
      ends.signal,
    );
    assert.deepEqual([pulls, ledger.free(), released], [0, 8, 4]);
  });

  it("whose provider never answers is closed after five seconds, and says so", async () => {
    const timers: (() => void)[] = [];
    const provider = { name: "mute", snapshot: () => new Promise<never>(() => undefined) };
    const settings = { staleMs: 0, onError: "closed" as const };
    const patient = {
      now: () => 0,
      after(_ms: number, work: () => void) {
        timers.push(work);
        return () => undefined;
      },
    };
    const asked = new Asked(provider, { clock: patient, settings, peers: () => 1 });
    const answer = asked.ask(never);
    await until(() => timers.length === 1);
    timers[0]!();
    const { free, result, reason } = await answer;
    assert.deepEqual([free, result, reason], [0, "error", "no answer in 5 s"]);
  });

  it("of capacity that comes and goes leaves no timer and no listener behind", async () => {
    const { between } = chance("soak");
    const shared = target(10, 0, { isTelling: true });
    const { gate, ledger } = gateOver([shared.provider], { slots: 4 });
    const timers = () => process.getActiveResourcesInfo().filter(one => one === "Timeout").length;
    const before = timers();
    for (let round = 0; round < SOAK_ROUNDS; round += 1) {
      const ends = new AbortController();
      shared.set(between(0, 1) === 1 ? 10 : between(0, 9));
      let isOver = false;
      const acquired = gate.acquire(ends.signal).catch(() => undefined);
      void acquired.finally(() => (isOver = true));
      await Promise.resolve();
      shared.set(between(0, 12));
      if (between(0, 1) === 1) ends.abort();
      for (; !isOver; await turn()) shared.set(0);
      const admission = await acquired;
      admission?.release(admission.budget);
      assert.equal(ledger.free(), 4, `round ${round}`);
    }
    assert.equal(shared.listeners, 0);
    await until(() => timers() <= before + 1);
  });

  it("aborted while a provider thinks ends at once; what comes later is given back", async () => {
    const answer = Promise.withResolvers<number>();
    let released = 0;
    const slow: CapacityProvider = {
      name: "slow",
      snapshot: () => Promise.resolve({ free: 8 }),
      reserve: () => answer.promise,
      release: count => void (released += count),
    };
    const { gate, ledger } = gateOver([slow]);
    const ends = new AbortController();
    const acquired = gate.acquire(ends.signal).catch(() => "aborted");
    await until(() => ledger.free() === 0);
    ends.abort();
    assert.equal(await acquired, "aborted");
    answer.resolve(8);
    await until(() => released === 8);
    assert.equal(ledger.free(), 8);
  });

  for (const [what, snapshot] of [
    ["fails", () => Promise.reject(new Error("it is away"))],
    ["gives no number", () => Promise.resolve({ free: NaN })],
    ["has a limit of nothing", () => Promise.resolve(freeOf({ limit: 0, used: 0 }, 1))],
    ["throws", () => freeOf({ limit: -1, used: 0 }, 1) as never],
  ] as [string, CapacityProvider["snapshot"]][]) {
    it(`with a provider that ${what} is closed, or open if so wanted; it recovers`, async () => {
      let isWell = false;
      const provider: CapacityProvider = {
        name: "faulty",
        snapshot: signal => (isWell ? Promise.resolve({ free: 2 }) : snapshot(signal)),
      };
      const open = gateOver([provider], { onError: "open" });
      assert.equal((await open.gate.acquire(never)).budget, 8);
      const { gate, watched, said } = gateOver([provider], { errorGraceMs: 1 });
      const acquired = gate.acquire(never);
      await until(() => watched[0]?.degraded && watched[0].checks.error > 1);
      assert.match(said[0] ?? "", /prefetch.blocked .*"reason":"provider_error: /);
      isWell = true;
      assert.equal((await acquired).budget, 2);
      assert.equal(watched[0]?.degraded, false);
    });
  }

  it("what was started since the target counted is counted here", async () => {
    const slow = target(10, 0);
    const { gate } = gateOver([slow.provider], { staleMs: 10_000, slots: 20 });
    const first = await gate.acquire(never);
    first.use(first.budget);
    const second = await Promise.race([gate.acquire(never), clock.sleep(50)]);
    assert.deepEqual([first.budget, second], [10, undefined]);
  });
});

describe("many consumers of one target", () => {
  it("that only see it overshoot by less than there are of them", async () => {
    const consumers = 8;
    for (const left of [1, 2, 3, 5, 8, 9, 10, 17]) {
      const shared = target(100, 100 - left);
      const gates = Array.from({ length: consumers }, () =>
        gateOver([shared.provider], { peers: consumers, slots: 50 }),
      );
      const admitted = await Promise.all(gates.map(({ gate }) => gate.acquire(never)));
      const total = admitted.reduce((sum, { budget }) => sum + budget, 0);
      assert.ok(total >= Math.min(left, consumers), `${total} of ${left}: nobody is shut out`);
      assert.ok(total - left <= consumers - 1, `${total} of ${left}`);
    }
  });

  it("that reserve never hold more than the limit together, in 10,000 random steps", async () => {
    const { between } = chance("reservations");
    const limit = 10;
    let used = 0;
    const exact: CapacityProvider = {
      name: "exact",
      snapshot: () => Promise.resolve({ limit, used, free: limit - used }),
      reserve(count) {
        const got = Math.min(count, limit - used);
        used += got;
        return Promise.resolve(got);
      },
      release: count => void (used -= count),
    };
    const gates = Array.from({ length: 8 }, () => gateOver([exact], { slots: 4 }));
    const held = gates.map(() => 0);
    for (let step = 0; step < 10_000; step += 1) {
      const at = between(0, gates.length - 1);
      const { gate, ledger } = gates[at]!;
      if (between(0, 1) === 1 && used < limit && ledger.free() > 0) {
        const admission = await gate.acquire(never);
        const count = between(0, admission.budget);
        admission.use(count);
        ledger.use("general", count);
        admission.release(admission.budget - count);
        held[at]! += count;
      } else if (held[at]! > 0) {
        held[at]! -= 1;
        ledger.give("general", 1);
        exact.release?.(1);
      }
      const total = held.reduce((sum, count) => sum + count, 0);
      assert.equal(used, total, `step ${step}`);
      assert.ok(total <= limit, `step ${step}: ${total}`);
    }
  });
});

describe("the numbers of a gate", () => {
  it("are all there, at zero, before it is used", async () => {
    const { gate, watched } = gateOver([target(75, 0).provider]);
    const metrics = createMetrics();
    const one = { gate, watched };
    countGates(metrics, { of: { general: one, database: one } } as unknown as Gates);
    const text = await metrics.render();
    for (const consumer of ["general", "database"]) {
      const labels = `consumer="${consumer}",provider="target"`;
      assert.ok(text.includes(`noetl_prefetch_blocked{${labels}} 0`), text);
      for (const result of ["ok", "full", "error"]) {
        assert.ok(text.includes(`noetl_prefetch_checks_total{${labels},result="${result}"} 0`));
      }
      assert.ok(text.includes(`noetl_prefetch_blocked_seconds_total{${labels}} 0`));
    }
    assert.ok(text.includes('noetl_prefetch_overshoot_total{provider="target"} 0'));
  });
});

describe("what a worker says when it starts", () => {
  it("is every limit with its source, who is asked, and no secret", () => {
    const { gate, watched } = gateOver([target(75, 0).provider]);
    const one = { gate, watched };
    const settings = loadSettings({
      NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "6",
      NATS_URL: "nats://me:hunter2@there:4222",
      NOETL_PREFETCH_GATE: "http",
      NOETL_PREFETCH_HTTP_URL: "http://probe/",
    });
    const { limits, ...record } = startRecord(settings, { of: { general: one, database: one } });
    assert.equal(limits["NOETL_WORKER_MAX_INFLIGHT_COMMANDS"], "6 (environment)");
    assert.equal(limits["NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS"], "4 (default)");
    assert.equal(limits["NOETL_WORKER_NATS_MAX_ACK_PENDING"], "64 (default)");
    assert.equal(limits["NOETL_POSTGRES_POOL_MAX_SIZE"], "12 (default)");
    assert.equal(limits["NOETL_PREFETCH_CAPACITY_RATIO"], "0.95 (default)");
    const asked = "local-slots target";
    assert.deepEqual(record.gate, { general: asked, database: asked });
    assert.doesNotMatch(JSON.stringify(limits), /hunter2/);
  });
});
