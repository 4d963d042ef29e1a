// An upstream that is down in the middle of a long loop with a retry budget: the work is parked.
// OUTAGE_SECONDS and OUTAGE_ITEMS make it longer: 120 and 5,000 are the required outcome.
import { strict as assert } from "node:assert";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as passed } from "node:timers/promises";
import { until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ended, statusOf, submit } from "../support/submitted.ts";

const SECONDS = Number(process.env["OUTAGE_SECONDS"] ?? 10);
const ITEMS = Number(process.env["OUTAGE_ITEMS"] ?? 600);
const BUDGET = 100;
/** From its return to the next item that is done. */
const BACK_MS_MAX = 5_000;

const WORK = (exec: string, items: number) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: outage, path: test/outage-${exec}}
workload: {api_url: ""}
workflow:
  - step: start
    loop:
      in: ${items}
      iterator: i
      spec:
        mode: parallel
        max_in_flight: 16
        retry_budget: ${BUDGET}
        policy: {exec: ${exec}}
    tool:
      kind: http
      url: "{{ api_url }}/items/{{ i }}"
      spec:
        policy:
          rules:
            - when: "{{ output.status == 'error' and output.error.retryable }}"
              then: {do: retry, attempts: 4, backoff: exponential, delay: 0.1}
`;

/** Answers each item after some milliseconds; while it is down it resets, or says 503. */
interface Upstream {
  url: string;
  isDown: boolean;
  calls: number;
  answered: number[];
  /** Milliseconds from a moment to the next answer; undefined when there was none. */
  firstAnswerAfter(at: number): number | undefined;
  server: Server;
}

async function startUpstream(): Promise<Upstream> {
  const answeredAt: number[] = [];
  const server = createServer((request, response) => {
    upstream.calls += 1;
    request.resume();
    if (upstream.isDown) {
      if (upstream.calls % 2 === 0) return void request.socket.destroy();
      return void response.writeHead(503).end();
    }
    setTimeout(() => {
      upstream.answered.push(Number(request.url?.split("/").at(-1)));
      answeredAt.push(performance.now());
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    }, 20);
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const upstream: Upstream = {
    ...{ url, server, isDown: false, calls: 0, answered: [] },
    firstAnswerAfter(at) {
      const first = answeredAt.find(one => one > at);
      return first === undefined ? undefined : Math.round(first - at);
    },
  };
  return upstream;
}

/** What an outage came to. */
interface Outcome {
  status: string;
  stats: unknown;
  /** In the middle of it: what the progress said, and how many commands had been begun. */
  parked: unknown;
  inFlight: number;
  /** Tries that the budget paid for, and calls more than there were items. */
  spent: number;
  extra: number;
  /** Items that were answered, each counted once. */
  answered: number;
  failedCommands: number;
  /** Reports of frames, and of those the ones with several items. */
  frames: number;
  wideFrames: number;
  /** From its return to the first answer; undefined when nobody asked any more. */
  backMs: number | undefined;
}

/** Everything was waited for: no item failed, and it cost no more than its budget. */
function assertParked(outcome: Outcome, items: number): void {
  const { status, stats, parked, inFlight, spent, extra, backMs = Infinity } = outcome;
  assert.match(JSON.stringify(parked), /HTTP_503|next_try_at/);
  assert.ok(inFlight <= 1, `${inFlight} in flight`);
  assert.equal(status, "COMPLETED");
  assert.deepEqual(stats, { total: items, success: items, failed: 0, not_run: 0 });
  assert.ok(backMs <= BACK_MS_MAX, `${backMs} ms`);
  assert.ok(spent <= BUDGET && extra <= BUDGET, `${extra} calls more than items`);
  assert.equal(outcome.answered, items);
  assert.equal(outcome.failedCommands, 0);
}

describe("an upstream that is down in the middle of a loop", function () {
  this.timeout(120_000 + SECONDS * 2_000);
  let stage: Stage;
  let upstream: Upstream;

  beforeEach(async () => {
    stage = await setStage();
    upstream = await startUpstream();
  });
  afterEach(endAll);
  afterEach(() => upstream.server.close());
  afterEach(() => stage.close());

  /** Runs a loop of so many items over an outage that begins after a third of them. */
  async function strike(plan: {
    exec: string;
    items: number;
    seconds: number;
    /** The server is killed half-way. */
    isKilled?: boolean;
    /** A rule that is switched off in it. */
    switchedOff?: string;
  }): Promise<Outcome> {
    const { exec, items, seconds, isKilled = false, switchedOff } = plan;
    const { store, env } = stage;
    const start = () => startServer(env, switchedOff === undefined ? {} : { switchedOff });
    const first = await start();
    const id = await submit(first, WORK(exec, items), { api_url: upstream.url });
    await until(() => Promise.resolve(upstream.answered.length >= items / 3), 60_000);
    upstream.isDown = true;
    // What is on its way is answered, and nothing else is.
    await passed((seconds * 1_000) / 2);
    const { body } = await first.ask("GET", `/executions/${id}`);
    const progress = (body["loop_progress"] as Record<string, Record<string, unknown>>)["start"];
    if (isKilled) {
      await first.kill();
      await start();
    }
    await passed((seconds * 1_000) / 2);
    const before = upstream.answered.length;
    upstream.isDown = false;
    const back = performance.now();
    const isBack = async () =>
      upstream.answered.length > before || (await statusOf(store.url, id)) !== "RUNNING";
    await until(isBack, 30_000);
    const backMs = upstream.firstAnswerAfter(back);
    const { status } = await ended(store.url, id, 120_000);
    const { events } = await assertSound(store.url, id);
    const count = (type: string) => events.filter(event => event.event_type === type).length;
    const frames = events.filter(event => event.event_type === "frame.committed");
    const outcome = {
      ...{ status, backMs },
      stats: events.find(event => event.event_type === "loop.done")?.meta["stats"],
      parked: progress?.["parked"],
      inFlight: Number(progress?.["in_flight"]),
      spent: events.filter(event => event.meta["spent"] !== undefined).length,
      extra: upstream.calls - items,
      answered: new Set(upstream.answered).size,
      failedCommands: count("command.failed"),
      frames: frames.length,
      wideFrames: frames.filter(({ meta }) => Number(meta["count"]) > 1).length,
    };
    process.stdout.write(
      `      ${exec}: ${upstream.calls} calls for ${items} items, ${outcome.spent} retries of ` +
        `${BUDGET} spent, ${frames.length} reports of frames, ` +
        `first answer ${backMs} ms after its return, ${status}\n`,
    );
    return outcome;
  }

  const size = `${SECONDS} s in ${ITEMS} items`;

  it(`parks a loop of commands (${size}): none fails, and it goes on soon after`, async () => {
    // The owner of the loop dies while it is parked: its waker is a row.
    const plan = { exec: "distributed", items: ITEMS, seconds: SECONDS, isKilled: true };
    assertParked(await strike(plan), ITEMS);
  });

  it(`parks a loop in frames (${size}) likewise`, async () => {
    const isKilled = SECONDS > 30;
    const outcome = await strike({ exec: "local", items: ITEMS, seconds: SECONDS, isKilled });
    assertParked(outcome, ITEMS);
    assert.ok(outcome.wideFrames > 0, "no frame had several items");
  });

  it("fails items where the budget is switched off", async () => {
    const plan = { exec: "distributed", items: 120, seconds: 3 };
    const outcome = await strike({ ...plan, switchedOff: "retry budgets" });
    assert.throws(() => assertParked(outcome, plan.items));
    assert.ok(outcome.failedCommands > 0);
  });
});
