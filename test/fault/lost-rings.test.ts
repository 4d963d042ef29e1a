// Commit first, then ring: what is between the two, and a ring that reaches nobody, cost time only.
import { strict as assert } from "node:assert";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound, readLog, type LogEvent } from "../support/log-checker.ts";
import { endAll, startServer, type Env } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { ended, longestSilenceMs, statusOf, submit } from "../support/submitted.ts";

/** Rings again after this, plus the second that a wake-up is rounded up to, plus a sweep. */
const RERING_SECONDS = 2;
const SILENCE_MAX_MS = 5_500;

describe("a ring that is lost", function () {
  this.timeout(60_000);
  let stage: Stage;
  let env: Env;

  beforeEach(async () => {
    stage = await setStage();
    env = { ...stage.env, NOETL_RERING_SECONDS: String(RERING_SECONDS) };
  });
  afterEach(endAll);
  afterEach(() => stage.close());

  /** Commands that were issued and that nobody has claimed. */
  async function unclaimed(id: string): Promise<number> {
    const { events } = await readLog(stage.store.url, id);
    const isClaim = (event: LogEvent) =>
      event.event_type === "command.claimed" || event.meta["claim_id"] !== undefined;
    const ids = (some: LogEvent[]) => new Set(some.map(event => String(event.meta["command_id"])));
    const issued = events.filter(event => event.event_type === "command.issued");
    return ids(issued).difference(ids(events.filter(isClaim))).size;
  }

  it("because its process was killed between commit and ring: the command still runs", async () => {
    const { api, store, target } = stage;
    // The first ring is that of the first step; the loop rings its window, eight, one by one.
    const at = chance("killed before ring").between(1, 9);
    const first = await startServer(env, { doorbell: ["die", String(at)] });
    const payload = { api_url: api.url, n: 40 };
    const submitted = submit(first, COPY, payload).catch(() => undefined);
    await first.ended;
    await submitted;
    // With the very first ring the answer to the start may have been lost too, but not the start.
    const [{ execution_id: id } = { execution_id: "" }] = (await readLog(store.url)).rows;
    assert.equal(await statusOf(store.url, id), "RUNNING");
    assert.ok((await unclaimed(id)) > 0, "every command that was issued had rung");
    await startServer(env);
    const { status, tookMs } = await ended(store.url, id);
    process.stdout.write(`      killed before ring ${at}: COMPLETED ${tookMs} ms later\n`);
    assert.equal(status, "COMPLETED");
    assert.ok(tookMs < SILENCE_MAX_MS + 2_000, `took ${tookMs} ms`);
    await assertCopied(target.url, 40);
    await assertSound(store.url, id);
  });

  it("on its way: the same process rings again within the interval", async () => {
    const { api, store, target } = stage;
    const at = chance("rings lost from").between(1, 9);
    const server = await startServer(env, { doorbell: ["lose", String(at)] });
    const id = await submit(server, COPY, { api_url: api.url, n: 40 });
    const { status } = await ended(store.url, id);
    assert.equal(status, "COMPLETED");
    assert.match(server.said, /lost ring/);
    const silenceMs = await longestSilenceMs(store.url, id);
    process.stdout.write(`      rings lost from ${at}: the longest silence was ${silenceMs} ms\n`);
    assert.ok(silenceMs > 1_000, "the loss cost nothing, so it was none");
    assert.ok(silenceMs < SILENCE_MAX_MS, `nothing happened for ${silenceMs} ms`);
    assert.equal(await assertCopied(target.url, 40), 0);
    await assertSound(store.url, id);
  });
});
