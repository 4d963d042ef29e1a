// kill -9 of `noetl start` in the middle of a run: the next one goes on, and the result is exact.
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { untoldItems } from "../support/lost-work.ts";
import {
  assertPftRows,
  BATCHES,
  fiveMinutesLater,
  PFT,
  SMOKE,
  smokePayload,
} from "../support/pft.ts";
import { endAll, startServer, type Env } from "../support/process.ts";
import { arePublicPlaybooksHere, embeddedUrl } from "../support/public-playbooks.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { FAMILY, FAMILY_CHILD } from "../playbooks/family-stories.ts";
import { asked, countEvents, deserted, ended, statusOf, submit } from "../support/submitted.ts";

const POSTS = "GET /posts/{id}";
/** Nothing a user would wait for: the dead worker is buried when the next one starts. */
const RECOVERY_MAX_MS = 10_000;

describe("a killed server", function () {
  this.timeout(120_000);
  let stage: Stage;

  beforeEach(async () => void (stage = await setStage()));
  afterEach(endAll);
  afterEach(() => stage.close());

  describe("while test_pft_flow runs", () => {
    if (!arePublicPlaybooksHere()) return;

    async function killOnce(what: string, urlOf: () => Promise<string>, settings: Env) {
      const { api, target } = stage;
      const seed = chance(what);
      const first = await startServer(settings);
      const playbook = await readFile(PFT, "utf8");
      const id = await submit(first, playbook, smokePayload(api.url));
      await asked(api, BATCHES, seed.between(1, 20));
      await first.kill();
      await deserted(target.url);
      await fiveMinutesLater(target.url);
      const second = await startServer(settings);
      const url = await urlOf();
      const { status, tookMs } = await ended(url, id);
      process.stdout.write(`      ${what}: COMPLETED ${tookMs} ms after the restart\n`);
      assert.equal(status, "COMPLETED");
      assert.ok(tookMs < RECOVERY_MAX_MS, `took ${tookMs} ms`);
      await assertPftRows(target.url, SMOKE);
      await assertSound(url, id);
      assert.ok((await countEvents(url, id, "command.expired")) > 0, "the kill hit nothing");
      return second;
    }

    it("the next one ends it with exactly the rows promised", async () => {
      const { store, env } = stage;
      const second = await killOnce("kill -9", () => Promise.resolve(store.url), env);
      second.signal("SIGTERM");
      assert.equal((await second.ended).code, 0);
    });

    it("so does the next one over an embedded Postgres that lost its last client", async () => {
      const { embedded } = stage;
      const url = () => embeddedUrl(embedded["NOETL_DATA_DIR"] ?? "");
      const second = await killOnce("kill -9, embedded", url, embedded);
      second.signal("SIGTERM");
      assert.equal((await second.ended).code, 0);
    });
  });

  it("nothing goes on without the next one, and two kills in one run lose nothing", async () => {
    const { api, store, target, env } = stage;
    const seed = chance("two kills");
    const first = await startServer(env);
    const id = await submit(first, COPY, { api_url: api.url, pause: 0.02 });
    await asked(api, POSTS, seed.between(5, 40));
    await first.kill();
    await deserted(target.url);
    const before = api.calls["total"];
    assert.equal(await statusOf(store.url, id), "RUNNING");
    const second = await startServer(env);
    await asked(api, POSTS, seed.between(45, 90));
    assert.ok((api.calls["total"] ?? 0) > (before ?? 0));
    await second.kill();
    await startServer(env);
    const { status, tookMs } = await ended(store.url, id);
    process.stdout.write(`      two kills: COMPLETED ${tookMs} ms after the last restart\n`);
    assert.equal(status, "COMPLETED");
    assert.ok(tookMs < RECOVERY_MAX_MS, `took ${tookMs} ms`);
    const again = await assertCopied(target.url, 100);
    const untold = untoldItems((await assertSound(store.url, id)).events);
    assert.ok(untold > 0, "the kills hit nothing");
    assert.ok(again <= untold, `${again} rows were written again, ${untold} were not told of`);
  });

  it("a parent of six children has each of them once", async () => {
    const { api, store, env } = stage;
    const seed = chance("parent and children");
    const first = await startServer(env);
    await first.ask("POST", "/catalog/register", FAMILY_CHILD);
    const id = await submit(first, FAMILY, { api_url: api.url });
    await asked(api, "GET /api/v1/concurrency/probe", seed.between(1, 25));
    await first.kill();
    const second = await startServer(env);
    const { status, tookMs } = await ended(store.url, id);
    process.stdout.write(`      parent and children: COMPLETED ${tookMs} ms after the restart\n`);
    assert.equal(status, "COMPLETED");
    const { body } = await second.ask("GET", `/executions/${id}`);
    assert.deepEqual(body["result"], { of: [0, 1, 2, 3, 4, 5] });
    const { rows } = await assertSound(store.url);
    assert.deepEqual(new Set(rows.map(row => row.status)), new Set(["COMPLETED"]));
    assert.equal(rows.length, 7, "a child was started twice");
  });
});
