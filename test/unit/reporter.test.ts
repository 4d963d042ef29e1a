// Outcomes that an owner cannot take as they are: told as failures, once, never for ever.
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import type { OutcomeRequest, Reply } from "../../mixins/actor-service.ts";
import { createClock } from "../../mixins/clock.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import { Reporter, type Outcome } from "../../services/worker/reporter.ts";

/** A way to owners that refuse every result of this status as malformed. */
function reporting(refuses: (outcome: OutcomeRequest) => boolean) {
  const heard: OutcomeRequest[][] = [];
  const link = {
    report(_actor: ActorKind, outcomes: OutcomeRequest[]): Promise<Reply[]> {
      heard.push(outcomes);
      return Promise.resolve(
        outcomes.map(({ command_id, ...rest }) =>
          refuses({ command_id, ...rest })
            ? { command_id, status: "refused", reason: "malformed", message: "too deep" }
            : { command_id, status: "ok" },
        ),
      );
    },
  } as unknown as ServerLink;
  const broker = new ServiceBroker({ logger: false });
  return { heard, reporter: new Reporter(broker, createClock(), link) };
}

/** A way on which each outcome is lost so often; the pauses that are made are told, not waited. */
function losing(times: number) {
  const lost = new Map<string, number>();
  const pauses: number[] = [];
  const link = {
    report(_actor: ActorKind, outcomes: OutcomeRequest[]): Promise<Reply[]> {
      const replies = outcomes.map(({ command_id }): Reply => {
        const before = lost.get(command_id) ?? 0;
        lost.set(command_id, before + 1);
        if (before >= times) return { command_id, status: "ok" };
        return { command_id, status: "failed", error: "lost" };
      });
      return Promise.resolve(replies);
    },
  } as unknown as ServerLink;
  const clock = {
    ...createClock(),
    async sleep(ms: number): Promise<void> {
      pauses.push(ms);
      await new Promise(resolve => setImmediate(resolve));
    },
  };
  const broker = new ServiceBroker({ logger: false });
  return { pauses, reporter: new Reporter(broker, clock, link) };
}

const ids = { actor: "executions" as const, execution_id: "1", stream_id: "1", worker_id: "w" };
const outcome = (command_id: string, more: Partial<Outcome> = {}): Outcome => ({
  ...{ ...ids, command_id, delivery: 1, ctx: { deep: {} }, result: { status: "ok" } },
  ...more,
});

describe("an outcome that cannot be taken as it is", () => {
  it("is told as the failure of its command", async () => {
    const { heard, reporter } = reporting(({ result }) => result.status === "ok");
    const settled = await reporter.report(outcome("1:a:1:1"));
    assert.deepEqual(settled, { accepted: true });
    const [, [told]] = heard as [OutcomeRequest[], OutcomeRequest[]];
    assert.equal(told?.result.error?.code, "MALFORMED");
    assert.equal(told?.result.error?.message, "too deep");
    assert.equal(told?.ctx, undefined);
  });

  it("of a frame fails the items it was about, and no others", async () => {
    const { heard, reporter } = reporting(({ frame }) => frame?.ok !== "");
    const frame = { ok: "0-2,5", failed: "4", final: true };
    await reporter.report(outcome("1:a:1:f0-8:1", { frame }));
    const told = heard.at(-1)?.[0];
    assert.deepEqual(told?.frame, { ok: "", failed: "0-2,4-5", final: true });
    assert.equal(told?.result.error?.code, "MALFORMED");
  });

  it("is given up when not even its failure is taken", async () => {
    const { heard, reporter } = reporting(() => true);
    assert.deepEqual(await reporter.report(outcome("1:a:1:1")), { accepted: false });
    assert.equal(heard.length, 2);
  });

  it("goes in messages that NATS takes, however many wait", async () => {
    const { heard, reporter } = reporting(() => false);
    const text = "x".repeat(200_000);
    const many = Array.from({ length: 6 }, (_, at) =>
      reporter.report(outcome(`1:a:${at}:1`, { result: { status: "ok", context: text } })),
    );
    await Promise.all(many);
    assert.equal(heard.flat().length, 6);
    for (const part of heard) assert.ok(JSON.stringify(part).length < 600_000);
  });
});

describe("an outcome that is lost on its way", () => {
  /** One batch each: the next is reported when the one before is on its way. */
  async function reportApart(reporter: Reporter, count: number): Promise<void> {
    const settled: Promise<unknown>[] = [];
    for (let at = 0; at < count; at += 1) {
      settled.push(reporter.report(outcome(`1:a:${at}:1`)));
      await new Promise(resolve => setImmediate(resolve));
    }
    await Promise.all(settled);
  }

  it("goes again soon, however many others were lost at the same time", async () => {
    const { pauses, reporter } = losing(1);
    await reportApart(reporter, 30);
    assert.ok(pauses.length > 0);
    assert.ok(Math.max(...pauses) <= 200, `a pause of ${Math.max(...pauses)} ms`);
    assert.equal(reporter.counters.reported, 30);
  });

  it("waits longer each time, for five seconds at most", async () => {
    const { pauses, reporter } = losing(10);
    await reportApart(reporter, 1);
    assert.equal(pauses.length, 10);
    assert.ok(pauses[0]! <= 200 && pauses[9]! >= 2_500, String(pauses));
    assert.ok(Math.max(...pauses) <= 5_000, String(pauses));
  });
});
