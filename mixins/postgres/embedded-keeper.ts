// The process that owns the Postgres of one data folder while any client is there: `keeper
// DATADIR`.
import { createServer, type Server, type Socket } from "node:net";
import { randomBytes } from "node:crypto";
import { rmSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import { Unavailable } from "../../schemas/errors.ts";
import { findRunner, type Runner } from "./embedded-binaries.ts";
import { DATABASE, dataFolder, prepareCluster, type DataFolder } from "./embedded-cluster.ts";
import {
  listen,
  readRecord,
  recordFile,
  say,
  type Announcement,
  type FromClient,
  type KeeperRecord,
} from "./embedded-link.ts";
import { BoundedLog } from "./embedded-log.ts";
import { startPostgres, type RunningPostgres } from "./embedded-server.ts";

/** A killed client may be one that restarts: so long do we wait for the next. */
const LINGER_MS = 300;
/**
 * After a keeper was killed its clients look for us: one that leaves early waits for the others.
 */
const SUCCESSION_MS = 1_000;
/** The client that started us joins as soon as we are ready, or was killed meanwhile. */
const FIRST_CLIENT_MS = 5_000;
const JOIN_TIMEOUT_MS = 5_000;
const MAX_RESTARTS_PER_MINUTE = 5;

class Keeper {
  readonly #folder: DataFolder;
  readonly #runner: Runner;
  readonly #log: BoundedLog;
  readonly #password: string;
  readonly #token = randomBytes(18).toString("base64url");
  readonly #clients = new Set<Socket>();
  readonly #leaving = new Set<Socket>();
  readonly #server: Server = createServer(socket => this.#admit(socket));
  #postgres: RunningPostgres;
  #restarts: number[] = [];
  #departure: NodeJS.Timeout | undefined;
  #closing = false;
  #leaveDelayMs: number;

  constructor(
    parts: {
      folder: DataFolder;
      runner: Runner;
      log: BoundedLog;
      password: string;
      isSuccessor: boolean;
    },
    postgres: RunningPostgres,
  ) {
    this.#leaveDelayMs = parts.isSuccessor ? SUCCESSION_MS : 0;
    this.#folder = parts.folder;
    this.#runner = parts.runner;
    this.#log = parts.log;
    this.#password = parts.password;
    this.#postgres = postgres;
  }

  async open(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject).listen(0, "127.0.0.1", resolve);
    });
    this.#publish();
    this.#closeAfter(FIRST_CLIENT_MS);
    setTimeout(() => (this.#leaveDelayMs = 0), SUCCESSION_MS);
    void this.#watch(); // Runs as long as the process; ends it when Postgres cannot be kept up.
  }

  /** The record goes first, so that nobody joins a keeper that is leaving. */
  async close(code = 0): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    rmSync(recordFile(this.#folder.root), { force: true });
    this.#server.close();
    await this.#postgres.stop();
    process.exit(code); // Closes what is still connected: those who left and wait for the end.
  }

  #admit(socket: Socket): void {
    const late = setTimeout(() => socket.destroy(), JOIN_TIMEOUT_MS);
    socket.on("error", () => undefined); // Followed by "close", which is what counts.
    socket.once("close", () => {
      clearTimeout(late);
      this.#leaving.delete(socket);
      this.#part(socket, LINGER_MS);
    });
    listen<FromClient>(socket, message => {
      if ("leave" in message) {
        this.#leaving.add(socket);
        this.#part(socket, this.#leaveDelayMs);
        this.#releaseLeavers();
      } else if (message.join === this.#token && !this.#closing) {
        clearTimeout(late);
        clearTimeout(this.#departure);
        this.#clients.add(socket);
        this.#greet(socket);
        this.#releaseLeavers();
      } else {
        socket.destroy();
      }
    });
  }

  #part(socket: Socket, lingerMs: number): void {
    if (this.#clients.delete(socket) && this.#clients.size === 0) this.#closeAfter(lingerMs);
  }

  /** Who leaves while others stay need not wait. The last one waits for the end of Postgres. */
  #releaseLeavers(): void {
    if (this.#clients.size === 0) return;
    for (const socket of this.#leaving) socket.end();
  }

  #closeAfter(delayMs: number): void {
    clearTimeout(this.#departure);
    this.#departure = setTimeout(() => void this.close(), delayMs);
  }

  #greet(socket: Socket): void {
    const { port } = this.#postgres;
    const url = `postgres://postgres:${this.#password}@127.0.0.1:${port}/${DATABASE}`;
    say(socket, { url, port });
  }

  #publish(): void {
    const record: KeeperRecord = {
      pid: process.pid,
      keeper_port: (this.#server.address() as { port: number }).port,
      postgres_port: this.#postgres.port,
      token: this.#token,
    };
    const file = recordFile(this.#folder.root);
    writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }

  async #watch(): Promise<void> {
    for (;;) {
      await this.#postgres.exited;
      if (this.#closing) return;
      this.#log.write(`keeper: postgres ended unexpectedly, starting it again\n`);
      try {
        await this.#restart();
      } catch (error) {
        this.#log.write(`keeper: giving up: ${(error as Error).message}\n`);
        return this.close(1);
      }
    }
  }

  /** On the same port, so that the clients' pools find it again by themselves. */
  async #restart(): Promise<void> {
    const now = Date.now();
    this.#restarts = [...this.#restarts.filter(at => at > now - 60_000), now];
    if (this.#restarts.length > MAX_RESTARTS_PER_MINUTE) {
      throw new Unavailable(`postgres ended ${MAX_RESTARTS_PER_MINUTE} times within a minute`);
    }
    await pause(50 * 2 ** this.#restarts.length);
    const { port } = this.#postgres;
    const parts = { folder: this.#folder, runner: this.#runner, log: this.#log };
    this.#postgres = await startPostgres({ ...parts, port });
    if (this.#closing) return void this.#postgres.stop().then(() => process.exit());
    if (this.#postgres.port === port) return;
    this.#publish();
    for (const socket of this.#clients) this.#greet(socket);
  }
}

/**
 * The lock of the data folder: an exclusive lock on an empty SQLite file. The kernel holds it and
 * drops it when we die, so it is never stale and no pid has to be trusted. Undefined when another
 * keeper is up; waits for one that is starting or stopping.
 */
async function acquire(folder: DataFolder): Promise<DatabaseSync | undefined> {
  const lock = new DatabaseSync(join(folder.root, "keeper.lock"));
  for (;;) {
    try {
      lock.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
      return lock;
    } catch (error) {
      const busy = (error as { errcode?: number }).errcode === 5;
      if (!busy) throw new Unavailable(`cannot lock ${folder.root}: ${(error as Error).message}`);
    }
    if (await readRecord(folder.root)) return undefined;
    await pause(25);
  }
}

async function start(folder: DataFolder): Promise<Keeper> {
  const isSuccessor = (await readRecord(folder.root)) !== undefined;
  const log = new BoundedLog(folder.log);
  const runner = await findRunner();
  const password = await prepareCluster(folder, runner);
  const postgres = await startPostgres({ folder, runner, log });
  const keeper = new Keeper({ folder, runner, log, password, isSuccessor }, postgres);
  await keeper.open();
  process.once("SIGTERM", () => void keeper.close()).once("SIGINT", () => void keeper.close());
  return keeper;
}

function announce(announcement: Announcement): void {
  process.stdout.write(`${JSON.stringify(announcement)}\n`);
}

// Whoever started us may be gone; its end of the pipe is not worth dying for.
process.stdout.on("error", () => undefined);
const folder = dataFolder(process.argv[2]!);
let lock: DatabaseSync | undefined;
try {
  lock = await acquire(folder);
  if (lock) await start(folder);
  announce(lock ? { ready: true } : { taken: true });
} catch (error) {
  const { type = "", message, code } = error as Error & { type?: string; code?: unknown };
  const failed = { type, message, code: typeof code === "number" ? code : 503 };
  announce({ failed });
  process.exitCode = 1;
  // An orderly end flushes the announcement. Nothing else is running.
}
