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
