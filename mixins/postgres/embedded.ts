// The embedded Postgres as its users see it: join a data folder, get a URL, leave.
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { access, constants, mkdir, realpath } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { extname, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Rejected, Unavailable, type RejectedCode } from "../../schemas/errors.ts";
import { cleanEnvironment } from "./embedded-binaries.ts";
import { dataFolder } from "./embedded-cluster.ts";
import {
  listen,
  readRecord,
  say,
  type Announcement,
  type FromKeeper,
  type KeeperRecord,
} from "./embedded-link.ts";

const JOIN_TIMEOUT_MS = 120_000;
const GREETING_TIMEOUT_MS = 5_000;
const LEAVE_TIMEOUT_MS = 15_000;
const LONGEST_BACKOFF_MS = 10_000;

/** Fields first, as the logger wants them. Never gets the URL: it has the password. */
export type EmbeddedLog = (fields: Record<string, unknown>, message: string) => void;

/** One process's share in the Postgres of a data folder. Others may share it at the same time. */
export interface EmbeddedPostgres {
  /** With the password: never log it. Changes only if the port was taken during a restart. */
  readonly url: string;
  readonly port: number;
  /** Gives the share up. The last one out has Postgres stopped when this returns. */
  leave(): Promise<void>;
}

/**
 * Starts the Postgres of a data folder, or adopts the one that runs there. It lives as long as any
 * process that joined does, however that process ends, and comes back by itself when it or its
 * keeper is killed. Does not keep the event loop alive. Throws Rejected for a folder that cannot be
 * used and Unavailable when Postgres cannot be started.
 */
export async function joinEmbedded(
  dataDir: string,
  options: { log?: EmbeddedLog } = {},
): Promise<EmbeddedPostgres> {
  const root = await usableFolder(dataDir);
  const link = await findKeeper(root, () => false);
  return new Share(root, link, options.log ?? (() => undefined));
}

interface Link {
  socket: Socket;
  greeting: FromKeeper;
}

class Share implements EmbeddedPostgres {
  readonly #root: string;
  readonly #log: EmbeddedLog;
  #link: Link;
  #left = false;
  #rejoining: Promise<void> | undefined;

  constructor(root: string, link: Link, log: EmbeddedLog) {
    this.#root = root;
    this.#log = log;
    this.#link = link;
    this.#hold(link);
  }

  get url(): string {
    return this.#link.greeting.url;
  }

  get port(): number {
    return this.#link.greeting.port;
  }

  async leave(): Promise<void> {
    this.#left = true;
    await this.#rejoining;
    const { socket } = this.#link;
    if (socket.destroyed) return;
    socket.ref();
    const closed = new Promise(done => socket.once("close", done));
    say(socket, { leave: true });
    socket.setTimeout(LEAVE_TIMEOUT_MS, () => socket.destroy());
    await closed;
  }

  #hold(link: Link): void {
    this.#link = link;
    link.socket.unref();
    link.socket.once("close", () => {
      if (!this.#left) this.#rejoining ??= this.#rejoin();
    });
  }

  /** The keeper was killed, or gave up. Nobody else will start a new one for us. */
  async #rejoin(): Promise<void> {
    for (let delayMs = 100; !this.#left; delayMs = Math.min(delayMs * 2, LONGEST_BACKOFF_MS)) {
      this.#log({ port: this.port }, "embedded postgres lost");
      try {
        const link = await findKeeper(this.#root, () => this.#left);
        this.#rejoining = undefined;
        this.#hold(link);
        this.#log({ port: this.port }, "embedded postgres found");
        return;
      } catch (error) {
        if (this.#left) return;
        this.#log({ error: (error as Error).message, delay_ms: delayMs }, "embedded postgres away");
      }
      await pause(delayMs, undefined, { ref: false });
    }
  }
}

async function usableFolder(dataDir: string): Promise<string> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await access(dataDir, constants.W_OK | constants.X_OK);
    return await realpath(dataDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Rejected(
      `the data folder ${resolve(dataDir)} cannot be used (${code}); ` +
        "set NOETL_DATA_DIR to a folder you may write to, or DATABASE_URL",
    );
  }
}

/** Connects to the folder's keeper and starts one when there is none. */
async function findKeeper(root: string, isAbandoned: () => boolean): Promise<Link> {
  const deadline = Date.now() + JOIN_TIMEOUT_MS;
  let starting: Promise<void> | undefined;
  let failure: Error | undefined;
  while (Date.now() < deadline && !isAbandoned()) {
    const record = await readRecord(root);
    const link = record && (await tryKeeper(record));
    if (link) return link;
    if (failure) throw failure;
    starting ??= startKeeper(root)
      .catch((error: Error) => void (failure = error))
      .finally(() => (starting = undefined));
    // Ours may be waiting for one that another client is starting: keep looking meanwhile.
    await Promise.race([starting, pause(25)]);
  }
  throw new Unavailable(
    `the embedded Postgres in ${root} did not answer within ${JOIN_TIMEOUT_MS / 1000} s; ` +
      `see ${dataFolder(root).log}`,
  );
}

/** Undefined when the record is a leftover: nobody there, or somebody else on that port. */
function tryKeeper(record: KeeperRecord): Promise<Link | undefined> {
  return new Promise(done => {
    const socket = connect(record.keeper_port, "127.0.0.1");
    const link: Link = { socket, greeting: { url: "", port: 0 } };
    socket.setTimeout(GREETING_TIMEOUT_MS, () => socket.destroy());
    socket.on("error", () => undefined); // Followed by "close".
    socket.once("close", () => done(undefined));
    say(socket, { join: record.token });
    listen<FromKeeper>(socket, greeting => {
      link.greeting = greeting;
      socket.setTimeout(0);
      done(link);
    });
  });
}

/** Resolves when a keeper is up, ours or another's. Rejects with what ours says is wrong. */
function startKeeper(root: string): Promise<void> {
  const child = spawnKeeper(root);
  return new Promise((done, fail) => {
    let text = "";
    child.stdout!.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      if (!text.includes("\n")) return;
      child.stdout!.destroy();
      child.unref();
      const said = JSON.parse(text) as Announcement;
      if ("failed" in said) fail(asError(said.failed));
      else done();
    });
    child.once("error", fail).once("close", code => {
      fail(new Unavailable(`the keeper of ${root} ended (${code}); see ${dataFolder(root).log}`));
    });
  });
}

/** A session of its own: neither a Ctrl-C nor our death reaches it, only our closed connection. */
function spawnKeeper(root: string): ChildProcess {
  const keeper = new URL(`./embedded-keeper${extname(import.meta.url)}`, import.meta.url);
  const errors = openSync(dataFolder(root).log, "a", 0o600);
  try {
    const flags = ["--disable-warning=ExperimentalWarning", fileURLToPath(keeper), root];
    return spawn(process.execPath, flags, {
      cwd: root,
      env: cleanEnvironment(),
      stdio: ["ignore", "pipe", errors],
      detached: true,
      windowsHide: true,
    });
  } finally {
    closeSync(errors);
  }
}

function asError(failed: { type: string; message: string; code: number }): Error {
  return failed.type === "REJECTED"
    ? new Rejected(failed.message, failed.code as RejectedCode)
    : new Unavailable(failed.message);
}
