// Postgres crashes and comes back in the middle of a run, several times: the result is exact.
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { assertPftRows, BATCHES, PFT, SMOKE, smokePayload } from "../support/pft.ts";
import { startServer as startPostgres, type TestServer } from "../support/postgres.ts";
import { endAll, startServer, type NoetlServer } from "../support/process.ts";
import { arePublicPlaybooksHere, embeddedUrl } from "../support/public-playbooks.ts";
import { setStage, type Stage } from "../support/stage.ts";
import {
  asked,
  countEvents,
  ended,
  longestSilenceMs,
  statusOf,
  submit,
} from "../support/submitted.ts";

const POSTS = "GET /posts/{id}";
/** From a crash to the next fact: the server's own start, and a back-off of at most 2 s. */
const SILENCE_MAX_MS = 8_000;

describe("a Postgres that crashes under a running server", function () {
  this.timeout(120_000);
  let postgres: TestServer;
  let stage: Stage;

  before(async () => void (postgres = await startPostgres()));
  beforeEach(async () => void (stage = await setStage(postgres)));
  afterEach(endAll);
  afterEach(() => stage.close());
  after(() => postgres.remove());

  async function assertExact(url: string, id: string, server: NoetlServer, what: string) {
    const { status, tookMs } = await ended(url, id);
    const silenceMs = await longestSilenceMs(url, id);
    process.stdout.write(
      `      ${what}: longest silence ${silenceMs} ms, end ${tookMs} ms later\n`,
    );
    assert.equal(status, "COMPLETED");
    assert.ok(silenceMs < SILENCE_MAX_MS, `nothing happened for ${silenceMs} ms`);
    await assertSound(url, id);
    // No worker died, so no delivery may have been lost to one.
    assert.equal(await countEvents(url, id, "command.expired"), 0);
    server.signal("SIGTERM");
    assert.equal((await server.ended).code, 0);
  }

  describe("which has a store of its own", () => {
    async function crash(id: string): Promise<void> {
      assert.equal(await statusOf(stage.store.url, id), "RUNNING", "it was over before the crash");
      await postgres.kill("immediate");
      await postgres.start();
    }

    it("costs time only: three crashes, and each row is written once", async () => {
      const { api, store, target, env } = stage;
      const seed = chance("three crashes");
      const server = await startServer(env);
      const id = await submit(server, COPY, { api_url: api.url, pause: 0.02 });
      for (const calls of [seed.between(1, 30), seed.between(31, 60), seed.between(61, 95)]) {
        await asked(api, POSTS, calls);
        await crash(id);
      }
      await assertExact(store.url, id, server, "three crashes");
      assert.equal(await assertCopied(target.url, 100), 0);
      assert.equal(api.calls[POSTS], 100);
    });

    it("costs test_pft_flow not one row", async function () {
      if (!arePublicPlaybooksHere(this)) return;
      const { api, store, target, env } = stage;
      const seed = chance("test_pft_flow, crashes");
      const server = await startServer(env);
      const id = await submit(server, await readFile(PFT, "utf8"), smokePayload(api.url));
      for (const calls of [seed.between(1, 10), seed.between(11, 23)]) {
        await asked(api, BATCHES, calls);
        await crash(id);
      }
      await assertExact(store.url, id, server, "test_pft_flow, crashes");
      await assertPftRows(target.url, SMOKE);
    });
  });

  it("is started again by the keeper when it is the embedded one", async () => {
    const { api, target, embedded } = stage;
    const seed = chance("embedded, killed");
    const folder = embedded["NOETL_DATA_DIR"] ?? "";
    const server = await startServer(embedded);
    const id = await submit(server, COPY, { api_url: api.url, pause: 0.02 });
    for (const calls of [seed.between(1, 40), seed.between(50, 90)]) {
      await asked(api, POSTS, calls);
      const pid = await postmasterPid(folder);
      process.kill(pid, "SIGKILL");
      await until(async () => (await postmasterPid(folder).catch(() => pid)) !== pid, 15_000);
    }
    await assertExact(await embeddedUrl(folder), id, server, "embedded, killed");
    assert.equal(await assertCopied(target.url, 100), 0);
  });
});

async function postmasterPid(folder: string): Promise<number> {
  return Number.parseInt(await readFile(join(folder, "postgres", "postmaster.pid"), "utf8"), 10);
}
