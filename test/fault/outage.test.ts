// An upstream that is down in the middle of a long loop with a retry budget: the work is parked.
// OUTAGE_SECONDS and OUTAGE_ITEMS make it longer: 120 and 5,000 are the required outcome.
import { strict as assert } from "node:assert";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as passed } from "node:timers/promises";
import { ask, until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer, type NoetlServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ended, submit } from "../support/submitted.ts";

const SECONDS = Number(process.env["OUTAGE_SECONDS"] ?? 10);
const ITEMS = Number(process.env["OUTAGE_ITEMS"] ?? 600);
const BUDGET = 100;
/** From its return to the next item that is done. */
const BACK_MS_MAX = 5_000;

const WORK = (exec: string) => `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: outage, path: test/outage-${exec}}
workload: {api_url: ""}
workflow:
  - step: start
    loop:
      in: ${ITEMS}
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
  lastAnswerAt: number;
  server: Server;
}

async function startUpstream(): Promise<Upstream> {
  const server = createServer((request, response) => {
    upstream.calls += 1;
    request.resume();
    if (upstream.isDown) {
      if (upstream.calls % 2 === 0) return void request.socket.destroy();
      return void response.writeHead(503).end();
    }
    setTimeout(() => {
      upstream.answered.push(Number(request.url?.split("/").at(-1)));
      upstream.lastAnswerAt = performance.now();
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    }, 20);
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const upstream: Upstream = {
    ...{ url, server, isDown: false, calls: 0, answered: [], lastAnswerAt: 0 },
  };
  return upstream;
}

describe(`an upstream that is down ${SECONDS} s in the middle of ${ITEMS} items`, function () {
  this.timeout(120_000 + SECONDS * 2_000);
  let stage: Stage;
  let server: NoetlServer;
  let upstream: Upstream;

  beforeEach(async () => {
    stage = await setStage();
    upstream = await startUpstream();
    server = await startServer(stage.env);
  });
  afterEach(endAll);
  afterEach(() => upstream.server.close());
  afterEach(() => stage.close());

  for (const exec of ["distributed", "local"]) {
    it(`parks a ${exec} loop: no item fails, and it goes on soon after`, async () => {
      const { store } = stage;
      const id = await submit(server, WORK(exec), { api_url: upstream.url });
      await until(() => Promise.resolve(upstream.answered.length >= ITEMS / 3), 60_000);
      upstream.isDown = true;
      // What is on its way is answered, and nothing else is.
      await passed((SECONDS * 1_000) / 2);
      const { body } = await server.ask("GET", `/executions/${id}`);
      const progress = (body["loop_progress"] as Record<string, Record<string, unknown>>)["start"];
      assert.match(JSON.stringify(progress?.["parked"]), /HTTP_503|next_try_at/);
      assert.equal((progress?.["in_flight"] as number) <= 1, true, JSON.stringify(progress));
      // The owner of the loop dies while it is parked: its waker is a row.
      if (exec === "distributed" || SECONDS > 30) {
        await server.kill();
        server = await startServer(stage.env);
      }
      await passed((SECONDS * 1_000) / 2);
      const before = upstream.answered.length;
      upstream.isDown = false;
      const back = performance.now();
      await until(() => Promise.resolve(upstream.answered.length > before), 30_000);
      const backMs = Math.round(upstream.lastAnswerAt - back);
      assert.equal((await ended(store.url, id, 120_000)).status, "COMPLETED");
      const { events } = await assertSound(store.url, id);
      const done = events.find(event => event.event_type === "loop.done");
      const spent = events.filter(event => event.meta["spent"] !== undefined).length;
      const extra = upstream.calls - ITEMS;
      process.stdout.write(
        `      ${exec}: ${upstream.calls} calls for ${ITEMS} items, ${spent} retries of ` +
          `${BUDGET} spent, first answer ${backMs} ms after its return\n`,
      );
      assert.deepEqual(done?.meta["stats"], {
        ...{ total: ITEMS, success: ITEMS, failed: 0, not_run: 0 },
      });
      assert.ok(backMs <= BACK_MS_MAX, `${backMs} ms`);
      assert.ok(spent <= BUDGET && extra <= BUDGET, `${extra} calls more than items`);
      assert.equal(new Set(upstream.answered).size, ITEMS);
      const [row] = await ask<{ failed: string }>(
        store.url,
        "select count(*) as failed from noetl.event where event_type = 'command.failed'",
      );
      assert.equal(Number(row?.failed), 0);
    });
  }
});
