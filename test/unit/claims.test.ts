// What a worker claims together.
import { strict as assert } from "node:assert";
import type { ServiceBroker } from "moleculer";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { Clock } from "../../mixins/clock.ts";
import type { Ring } from "../../schemas/decider.ts";
import { Claims } from "../../services/worker/claims.ts";

/** Claims of one node's commands; `refused` ones are held by somebody else, one answer is late. */
function claiming(refused: string[] = [], late: Partial<Record<string, Promise<void>>> = {}) {
  const asked: string[][] = [];
  const claim = async (_actor: string, { claims }: { claims: { command_id: string }[] }) => {
    asked.push(claims.map(({ command_id }) => command_id));
    await late[claims[0]!.command_id];
    return claims.map(({ command_id }) =>
      refused.includes(command_id)
        ? { command_id, status: "refused", reason: "held" }
        : { command_id, status: "ok", grant: { command_id } },
    );
  };
  const broker = { registry: { getServiceList: () => [] } } as unknown as ServiceBroker;
  const clock = { now: () => 0 } as Clock;
  const me = { worker_id: "w", incarnation: "i", machine: "m", pid: 1 };
  const claims = new Claims({ broker, clock, link: { claim } as unknown as ServerLink, me });
  return { claims, asked };
}

const ringOf = (command_id: string) =>
  ({ execution_id: "1", stream_id: "1", command_id }) as unknown as Ring;

describe("claims", () => {
  it("of one turn of the event loop go together, whichever pull brought their rings", async () => {
    const { claims, asked } = claiming();
    const first = claims.claim("loops", [ringOf("a")]);
    await Promise.resolve();
    const second = claims.claim("loops", [ringOf("b"), ringOf("c")]);
    const grants = (await Promise.all([first, second])).map(all => all.map(one => one.command_id));
    assert.deepEqual(grants, [["a"], ["b", "c"]]);
    assert.deepEqual(asked, [["a", "b", "c"]]);
  });

  it("of steps do not wait for the end of the turn", async () => {
    const { claims, asked } = claiming();
    let isTurned = false;
    setImmediate(() => (isTurned = true));
    await claims.claim("executions", [ringOf("a"), ringOf("b")]);
    assert.equal(isTurned, false);
    assert.deepEqual(asked, [["a", "b"]]);
  });

  it("of a later turn do not wait for those on their way", async () => {
    const answer = Promise.withResolvers<void>();
    const { claims, asked } = claiming([], { a: answer.promise });
    const first = claims.claim("executions", [ringOf("a")]);
    await new Promise(resolve => setImmediate(resolve));
    const [second] = await claims.claim("executions", [ringOf("b")]);
    assert.equal(second?.command_id, "b");
    answer.resolve();
    assert.equal((await first)[0]?.command_id, "a");
    assert.deepEqual(asked, [["a"], ["b"]]);
  });

  it("that are refused are somebody else's", async () => {
    const { claims } = claiming(["b"]);
    const grants = await claims.claim("executions", [ringOf("a"), ringOf("b")]);
    assert.deepEqual(
      grants.map(one => one.command_id),
      ["a"],
    );
  });
});
