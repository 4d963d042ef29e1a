// The embedded Postgres: shared by processes, and never broken by how one of them ended.
import { strict as assert } from "node:assert";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { joinEmbedded, type EmbeddedPostgres } from "../../mixins/postgres/embedded.ts";
import type { KeeperRecord } from "../../mixins/postgres/embedded-link.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const CLIENT = here("../support/embedded-client.ts");
const KEEPER = here("../../mixins/postgres/embedded-keeper.ts");

/** Whoever a failed test left behind. */
const guests: (() => Promise<unknown>)[] = [];

async function share(...args: Parameters<typeof joinEmbedded>): Promise<EmbeddedPostgres> {
  const embedded = await joinEmbedded(...args);
  guests.push(() => embedded.leave());
  return embedded;
}

interface Client {
  process: ChildProcess;
  url: string;
  leave(): Promise<void>;
  kill(): Promise<void>;
}

/** Another process in the folder. */
async function client(folder: string): Promise<Client> {
  const child = spawn(process.execPath, [CLIENT, folder], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const [line] = (await Promise.race([once(child.stdout, "data"), exited])) as unknown[];
  assert.ok(Buffer.isBuffer(line), "the client process ended before it had joined");
  guests.push(async () => child.kill("SIGKILL"));
  return {
    process: child,
    url: line.toString().trim(),
    async leave() {
      child.stdin.write("leave\n");
      assert.deepEqual(await exited, [0, null]);
    },
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const connection = new pg.Client(url);
  await connection.connect();
  try {
    return (await connection.query(text)).rows as Record<string, unknown>[];
  } finally {
    await connection.end();
  }
}

async function record(folder: string): Promise<KeeperRecord> {
  return JSON.parse(await readFile(join(folder, "keeper.json"), "utf8")) as KeeperRecord;
}

async function postmasterPid(folder: string): Promise<number> {
  return Number.parseInt(await readFile(join(folder, "postgres", "postmaster.pid"), "utf8"));
}

/** Polls a condition, because nobody announces the end of a stranger's process. */
async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!(await holds().catch(() => false))) {
    assert.ok(Date.now() < deadline, `still not: ${what}`);
    await pause(20);
  }
}

const isGone = async (path: string): Promise<boolean> =>
  stat(path).then(
    () => false,
    () => true,
  );

const isStopped = async (folder: string): Promise<boolean> =>
  (await isGone(join(folder, "keeper.json"))) &&
  (await isGone(join(folder, "postgres", "postmaster.pid")));

describe("embedded postgres", function () {
  this.timeout(60_000);
  const folders: string[] = [];

  async function newFolder(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "noetl-embedded-"));
    folders.push(folder);
    return folder;
  }

  afterEach(async () => {
    for (const end of guests.splice(0)) await end();
  });

  after(async () => {
    for (const folder of folders) await rm(folder, { recursive: true, force: true });
  });

  describe("in a used folder", () => {
    let folder: string;
    before(async () => {
      folder = await newFolder();
      const first = await share(folder);
      await query(first.url, "create table kept (n int)");
      await first.leave();
    });
    beforeEach("everything is stopped", () => eventually("stopped", () => isStopped(folder)));

    it("a second run has the data of the first, on the same port", async () => {
      const one = await share(folder);
      await query(one.url, "insert into kept values (1)");
      await one.leave();
      assert.ok(await isStopped(folder), "leave() returned before Postgres had stopped");
      const two = await share(folder);
      assert.equal(two.url, one.url);
      assert.deepEqual(await query(two.url, "select n from kept"), [{ n: 1 }]);
      await two.leave();
    });

    it("keeps durability on and has one database, noetl, in UTF-8", async () => {
      const embedded = await share(folder);
      const [row] = await query(
        embedded.url,
        `select current_setting('fsync') as fsync, current_setting('synchronous_commit') as sync,
                current_database() as name, upper('é') as upper`,
      );
      assert.deepEqual(row, { fsync: "on", sync: "on", name: "noetl", upper: "É" });
      await embedded.leave();
    });

    it("refuses who has not the password, in a file that only the owner can read", async () => {
      const embedded = await share(folder);
      await assert.rejects(
        query(embedded.url.replace(/:[^:@]*@/, ":guess@"), "select 1"),
        /28P01|password/,
      );
      for (const file of ["postgres.password", "keeper.json", "postgres.log"]) {
        assert.equal((await stat(join(folder, file))).mode & 0o077, 0, file);
      }
      await embedded.leave();
    });

    it("a lost password file is made again", async () => {
      await rm(join(folder, "postgres.password"));
      const embedded = await share(folder);
      assert.equal((await query(embedded.url, "select 1")).length, 1);
      await embedded.leave();
    });

    it("the first of two to leave does not take Postgres away, the last one stops it", async () => {
      const [one, two] = await Promise.all([client(folder), client(folder)]);
      assert.equal(one.url, two.url);
      await one.leave();
      assert.equal((await query(two.url, "select 1")).length, 1);
      await two.leave();
      assert.ok(await isStopped(folder));
    });

    it("a client killed with -9 leaves nothing running, and the next run works", async () => {
      const killed = await client(folder);
      await killed.kill();
      await eventually("stopped", () => isStopped(folder));
      const next = await share(folder);
      assert.ok((await query(next.url, "select n from kept")).length > 0);
      await next.leave();
    });

    it("the last of several killed clients stops Postgres, not the first", async () => {
      const [one, two] = [await client(folder), await client(folder)];
      await one.kill();
      await pause(500); // Longer than a keeper without clients would stay.
      assert.equal((await query(two.url, "select 1")).length, 1);
      await two.kill();
      await eventually("stopped", () => isStopped(folder));
    });

    it("a client rejoins by itself when the keeper is killed, on the same port", async () => {
      const lost = new Set<string>();
      const embedded = await share(folder, { log: (_, message) => lost.add(message) });
      const { url } = embedded;
      process.kill((await record(folder)).pid, "SIGKILL");
      await eventually("rejoined", async () => lost.has("embedded postgres found"));
      assert.equal(embedded.url, url);
      assert.ok((await query(url, "select n from kept")).length > 0);
      await embedded.leave();
      assert.ok(await isStopped(folder));
    });

    it("two clients of a killed keeper agree on one successor", async () => {
      const [one, two] = [await share(folder), await client(folder)];
      const { pid } = await record(folder);
      process.kill(pid, "SIGKILL");
      await eventually("a new keeper", async () => (await record(folder)).pid !== pid);
      await one.leave();
      assert.equal((await query(two.url, "select 1")).length, 1);
      await two.leave();
      assert.ok(await isStopped(folder));
    });

    it("the keeper starts Postgres again, on the same port, when that is killed", async () => {
      const embedded = await share(folder);
      const pid = await postmasterPid(folder);
      process.kill(pid, "SIGKILL");
      await eventually("a new postmaster", async () => (await postmasterPid(folder)) !== pid);
      await eventually("answers", async () => (await query(embedded.url, "select 1")).length === 1);
      await embedded.leave();
    });

    it("everything killed at once with -9 does not break the next run", async () => {
      const killed = await client(folder);
      await query(killed.url, "insert into kept values (9)");
      const pids = [await postmasterPid(folder), (await record(folder)).pid];
      for (const pid of pids) process.kill(pid, "SIGKILL");
      await killed.kill();
      const next = await share(folder);
      assert.deepEqual(await query(next.url, "select n from kept where n = 9"), [{ n: 9 }]);
      await next.leave();
    });

    it("a lock file whose pid is another program's by now does not break a run", async () => {
      const lines = [process.pid, join(folder, "postgres"), 1, 1, "", "127.0.0.1", "0 0", "ready"];
      await writeFile(join(folder, "postgres", "postmaster.pid"), `${lines.join("\n")}\n`);
      const embedded = await share(folder);
      assert.equal((await query(embedded.url, "select 1")).length, 1);
      await embedded.leave();
    });

    it("takes another port when its own is in use", async () => {
      const port = (await readFile(join(folder, "postgres.port"), "utf8")).trim();
      const { createServer } = await import("node:net");
      const squatter = createServer().listen(Number(port), "127.0.0.1");
      await once(squatter, "listening");
      const embedded = await share(folder);
      assert.notEqual(String(embedded.port), port);
      assert.equal((await query(embedded.url, "select 1")).length, 1);
      await embedded.leave();
      squatter.close();
    });
  });

  it("two processes that start at once in a fresh folder share one Postgres", async () => {
    const folder = await newFolder();
    const [one, two] = await Promise.all([client(folder), client(folder)]);
    assert.equal(one.url, two.url);
    await one.leave();
    assert.equal((await query(two.url, "select 1")).length, 1);
    await two.leave();
  });

  it("a first start killed during initdb leaves nothing that breaks the next", async () => {
    const folder = await newFolder();
    const child = spawn(process.execPath, [KEEPER, folder], { stdio: "ignore" });
    const half = async (): Promise<string | undefined> =>
      (await readdir(folder)).find(name => /^postgres\.new-[0-9a-f]+$/.test(name));
    await eventually("initdb has begun", async () => (await half()) !== undefined);
    child.kill("SIGKILL");
    await once(child, "exit");
    const embedded = await share(folder);
    assert.equal((await query(embedded.url, "select 1")).length, 1);
    await embedded.leave();
    assert.equal(await half(), undefined);
  });

  it("does not keep its process alive", async () => {
    const folder = await newFolder();
    const code = `await (await import(process.argv[1])).joinEmbedded(process.argv[2])`;
    const module = new URL("../../mixins/postgres/embedded.ts", import.meta.url).href;
    const flags = ["--input-type=module", "-e", code, module, folder];
    const child = spawn(process.execPath, flags, { stdio: "inherit" });
    assert.deepEqual(await once(child, "exit"), [0, null]);
    await eventually("stopped", () => isStopped(folder));
  });

  it("refuses data of another major version and says what to do", async () => {
    const folder = await newFolder();
    const { mkdir } = await import("node:fs/promises");
    await mkdir(join(folder, "postgres"));
    await writeFile(join(folder, "postgres", "PG_VERSION"), "12\n");
    await assert.rejects(share(folder), (error: Error & { type?: string }) => {
      assert.equal(error.type, "REJECTED");
      assert.match(error.message, /made by Postgres 12.*brings Postgres \d\d.*NOETL_DATA_DIR/s);
      return true;
    });
  });

  it("refuses a data folder that cannot be one", async () => {
    const folder = await newFolder();
    const file = join(folder, "a-file");
    await writeFile(file, "");
    await assert.rejects(share(file), { type: "REJECTED", message: /NOETL_DATA_DIR/ });
  });
});
