// Streams towards readers that are slow, silent or gone, over executions that answer as told.
import { strict as assert } from "node:assert";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { LiveStreams } from "../../services/api/live.ts";
import { until } from "../support/actors.ts";
import { openEventStream } from "../support/event-stream.ts";

interface Look {
  after?: number;
  timeout_ms?: number;
}

/** What executions.tail says. */
type Answer = (look: Look, turn: number) => Promise<object>;

const quiet = (after = 0) => ({
  events: [] as object[],
  version: after,
  seen: "1",
  execution: { status: "RUNNING" },
  ended: false,
});

describe("live streams", () => {
  let server: Server;
  let url: string;
  let live: LiveStreams;
  let answer: Answer;
  let looks = 0;
  let followed: Promise<void>[] = [];
  let recheck: () => Promise<void>;

  beforeEach(async () => {
    live = new LiveStreams({ max: 4, beatMs: 30 });
    looks = 0;
    followed = [];
    recheck = () => Promise.resolve();
    server = createServer((req, res) => {
      const { headers } = req;
      const request = { path: { execution_id: "7" }, query: {}, body: undefined, headers };
      const call = (action: string, params: Look): Promise<never> => {
        if (action === "executions.get") return Promise.resolve({ status: "COMPLETED" } as never);
        looks += 1;
        return answer(params, looks) as Promise<never>;
      };
      const following = live.follow({ ...request, call, recheck: () => recheck() }, res);
      followed.push(following.catch(() => void res.destroy()));
    });
    await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });
  afterEach(async () => {
    live.close();
    server.closeAllConnections();
    await new Promise(resolve => server.close(resolve));
  });

  it("ask for nothing more while their reader takes nothing", async () => {
    const text = "x".repeat(10_000);
    answer = async ({ after = 0 }) => {
      const events = Array.from({ length: 100 }, (_, index) => ({
        version: after + index + 1,
        text,
      }));
      return { ...quiet(), events, version: after + 100, ended: after + 100 >= 2_000 };
    };
    const stream = await openEventStream(url);
    stream.pause();
    const stalled = async () => {
      const before = looks;
      await delay(400);
      return looks === before;
    };
    await until(stalled);
    const looked = looks;
    assert.ok(looked < 20, `${looked} looks into nowhere`);
    assert.equal(live.open, 1);
    stream.resume();
    const messages = await stream.rest();
    assert.equal(messages.filter(one => one.event === "event").length, 2_000);
    assert.equal(messages.at(-1)?.event, "end");
    await Promise.all(followed);
    assert.equal(live.open, 0);
  });

  it("are forgotten as soon as their reader is gone, though a look still waits", async () => {
    answer = async look => (look.timeout_ms === 0 ? quiet() : new Promise(() => undefined));
    const streams = await Promise.all([1, 2, 3].map(() => openEventStream(url)));
    await until(async () => looks === 6);
    assert.equal(live.open, 3);
    for (const stream of streams) stream.close();
    await Promise.all(followed);
    assert.equal(live.open, 0);
  });

  it("say that they are still there when there is nothing to say", async () => {
    answer = async (look, turn) => {
      await delay(look.timeout_ms === 0 ? 0 : 200);
      return { ...quiet(), ended: turn === 3 };
    };
    const stream = await openEventStream(url);
    const messages = await stream.rest();
    assert.deepEqual(
      messages.map(one => one.event),
      ["progress", "end"],
    );
    assert.ok(stream.comments() >= 5, `${stream.comments()} signs of life`);
  });

  it("outlive a database that is away for a while", async () => {
    answer = async (_look, turn) => {
      if (turn === 2) throw new Unavailable("Postgres is away");
      return turn === 1 ? quiet() : { ...quiet(3), events: [{ version: 3 }], ended: true };
    };
    const messages = await (await openEventStream(url)).rest();
    assert.deepEqual(
      messages.map(one => one.event),
      ["progress", "event", "end"],
    );
  });

  it("end with the reason when the key is revoked meanwhile", async () => {
    answer = async look => {
      await delay(look.timeout_ms === 0 ? 0 : 50);
      return quiet();
    };
    recheck = () => Promise.reject(new Rejected("The API key is unknown or revoked", 401));
    const messages = await (await openEventStream(url)).rest();
    assert.deepEqual(
      messages.map(one => one.event),
      ["progress", "problem"],
    );
    assert.equal((messages[1]?.data["error"] as { code: number }).code, 401);
  });
});
