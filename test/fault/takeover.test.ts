// Two servers over one database, without NATS: when one is killed the other takes over.
import { strict as assert } from "node:assert";
import { ask } from "../support/actors.ts";
import { openDatabase } from "../../mixins/postgres/index.ts";
import { setWakes, wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY, COPY_SHARDS } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { endAll, startServer } from "../support/process.ts";
import { setStage, type Stage } from "../support/stage.ts";
import { asked, countEvents, ended, longestSilenceMs, submit } from "../support/submitted.ts";

/** A dead process of the same machine is known by its pid, long before its lease has passed. */
const SILENCE_MAX_MS = 4_000;

describe("the other of two servers", function () {
  this.timeout(120_000);
  let stage: Stage;

  before(async () => void (stage = await setStage()));
  afterEach(endAll);
  after(() => stage.close());

  for (const [what, playbook] of [
    ["a loop", COPY],
    ["a fan-out", COPY_SHARDS],
  ] as const) {
    it(`takes over within seconds what a killed one held of ${what}`, () => takeOver(playbook));
  }

  async function takeOver(playbook: string): Promise<void> {
    const { api, store, target, env } = stage;
    const seed = chance("takeover");
    const [first] = await Promise.all([startServer(env), startServer(env)]);
    const id = await submit(first, playbook, { api_url: api.url, pause: 0.05 });
    const before = api.calls["GET /posts/{id}"] ?? 0;
    await asked(api, "GET /posts/{id}", before + seed.between(10, 60));
    await first.kill();
    const { status } = await ended(store.url, id);
    const silenceMs = await longestSilenceMs(store.url, id);
    process.stdout.write(`      takeover: the longest silence was ${silenceMs} ms\n`);
    assert.equal(status, "COMPLETED");
    assert.ok(silenceMs < SILENCE_MAX_MS, `nothing happened for ${silenceMs} ms`);
    await assertCopied(target.url, 100);
    await assertSound(store.url, id);
    assert.ok((await countEvents(store.url, id, "command.expired")) > 0, "the kill hit nothing");
  }

  it("is not put to sleep by a turn that read the world before the other died", async () => {
    const { store } = stage;
    const database = openDatabase({ url: store.url, size: 1 });
    const wakeMs = async (): Promise<number> => {
      const [row] = await ask<{ ms: number }>(
        store.url,
        `select (extract(epoch from wake_at - now()) * 1000)::double precision as ms
         from noetl.stream where stream_id = 1`,
      );
      return row?.ms ?? NaN;
    };
    const far = { stream_id: "1", version: 1, wake_at: Date.now() + 30_000 };
    await database.query(
      `insert into noetl.stream (stream_id, execution_id, kind, version, wake_at, owner)
       values (1, 1, 'loops', 1, now() + interval '5 seconds', 'other')`,
    );
    await setWakes(database, [far]);
    assert.ok((await wakeMs()) > 20_000, "a deadline is not kept");
    await wakeStreamsOf(database, ["other"]);
    await setWakes(database, [far]);
    assert.ok((await wakeMs()) <= 0, "the wake-up of the burial is lost");
    await database.query("delete from noetl.stream where stream_id = 1");
    await database.close();
  });
});
