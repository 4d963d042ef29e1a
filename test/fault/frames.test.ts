// kill -9 in the middle of a frame: what it had told is done, what it had not is done again.
import { strict as assert } from "node:assert";
import { chance } from "../support/chance.ts";
import { ask, until } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { countEvents, ended, submit } from "../support/submitted.ts";

const N = 150;
const WINDOW = 2;
const SLOW_SECONDS = 0.15;
/** A frame tells what is done every two seconds: more than these is never done again. */
const FLUSH_ITEMS = Math.ceil(2 / SLOW_SECONDS) + 1;

/** Quick at first, so that frames grow; then slow, so that one takes several flushes. */
const SLOWING = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: slowing, path: test/slowing}
workflow:
  - step: start
    tool: {kind: postgres, auth: pg_k8s, query: create table done (i integer not null)}
    next: {arcs: [{step: each}]}
  - step: each
    loop:
      in: ${N}
      iterator: i
      spec: {mode: parallel, max_in_flight: ${WINDOW}}
    tool:
      kind: postgres
      auth: pg_k8s
      query: insert into done select $1::integer from pg_sleep($2::float)
      params: ["{{ i }}", "{{ 0 if i < 40 else ${SLOW_SECONDS} }}"]
`;

describe("a worker killed in the middle of a frame", function () {
  this.timeout(90_000);
  let stage: Stage;

  beforeEach(async () => void (stage = await setStage()));
  afterEach(endAll);
  afterEach(() => stage.close());

  it("repeats at most one flush of each frame, and nothing that was told", async () => {
    const { env, store, target } = stage;
    const seed = chance("frames");
    const first = await startServer(env);
    const id = await submit(first, SLOWING, {});
    const told = async () =>
      (
        await ask<{ meta: { ok: string; first: number; count: number } }>(
          store.url,
          `select meta from noetl.event where execution_id = $1
             and event_type = 'frame.committed' and not (meta->>'final')::boolean`,
          [id],
        )
      ).map(({ meta }) => meta);
    await until(async () => (await told()).length > 0, 30_000);
    await new Promise(resolve => setTimeout(resolve, seed.between(100, 1_500)));
    await first.kill();
    const flushed = await told();
    const second = await startServer(env);
    const { status } = await ended(store.url, id);
    assert.equal(status, "COMPLETED");
    await assertSound(store.url, id);
    const times = await ask<{ i: number; n: number }>(
      target.url,
      "select i, count(*)::integer as n from done group by i order by i",
    );
    assert.deepEqual(
      times.map(row => row.i),
      Array.from({ length: N }, (_, index) => index),
    );
    const again = times.filter(row => row.n > 1).map(row => row.i);
    process.stdout.write(`      ${again.length} of ${N} items were done twice\n`);
    assert.ok(times.every(row => row.n <= 2));
    assert.ok(again.length <= WINDOW * FLUSH_ITEMS, `${again.length} were done twice`);
    for (const { ok } of flushed) {
      for (const part of ok.split(",")) {
        const [from, to] = part.split("-").map(Number) as [number, number | undefined];
        const repeated = again.filter(index => index >= from && index <= (to ?? from));
        assert.deepEqual(repeated, [], "what was told is not done again");
      }
    }
    assert.ok((await countEvents(store.url, id, "command.expired")) > 0, "the kill hit nothing");
    second.signal("SIGTERM");
    await second.ended;
  });
});
