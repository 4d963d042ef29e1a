// One Postgres server process of ours: started on a free loopback port, watched, stopped.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { Unavailable } from "../../schemas/errors.ts";
import { cleanEnvironment, commandLine, execute, type Runner } from "./embedded-binaries.ts";
import type { DataFolder } from "./embedded-cluster.ts";
import type { BoundedLog } from "./embedded-log.ts";

/** Below the range that systems take outgoing ports from, so a port stays free while we restart. */
const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;
const START_ATTEMPTS = 6;
const STOP_TIMEOUT_MS = 10_000;

/** A laptop's settings. Nothing here trades durability: fsync and synchronous_commit stay on. */
const SETTINGS = {
  fsync: "on",
  synchronous_commit: "on",
  shared_buffers: "128MB",
  max_connections: "100",
  max_wal_size: "1GB",
  wal_compression: "on",
  jit: "off",
  log_min_messages: "warning",
  log_checkpoints: "off",
  timezone: "UTC",
  log_timezone: "UTC",
};

/**
 * `fast` ends sessions and checkpoints; `immediate` is a crash that the next start recovers from.
 */
export type StopMode = "fast" | "immediate";

export interface RunningPostgres {
  readonly port: number;
  readonly pid: number;
  /** Settles when the process has ended, for whatever reason. */
  readonly exited: Promise<void>;
  stop(mode?: StopMode): Promise<void>;
}

interface StartOptions {
  folder: DataFolder;
  runner: Runner;
  log: BoundedLog;
  /** Taken when it is free, else another one is. */
  port?: number;
  settings?: Record<string, string>;
}

/** Starts Postgres on prepared data. The caller holds the folder's lock. Throws Unavailable. */
export async function startPostgres(options: StartOptions): Promise<RunningPostgres> {
  const { folder, runner, log } = options;
  await clearPredecessor(folder, runner);
  let preferred = options.port ?? Number(await readFile(folder.port, "utf8").catch(() => 0));
  for (let attempt = 1; ; attempt++) {
    log.forget();
    const port = await freePort(preferred);
    const child = spawnPostgres(options, port);
    if (await isReady(child, log)) {
      await writeFile(folder.port, String(port));
      return running(child, port, options);
    }
    const refusal = log.tail();
    const portTaken = /could not create any TCP\/IP sockets/.test(refusal);
    // The children of a killed server need a moment to notice and to let go of its memory.
    const stillEnding = /shared memory block|lock file "postmaster.pid" already/.test(refusal);
    if (attempt === START_ATTEMPTS || !(portTaken || stillEnding)) throw startFailure(folder, log);
    if (portTaken) preferred = 0;
    await pause(100 * 2 ** attempt);
  }
}

function spawnPostgres(
  { folder, runner, log, settings }: StartOptions,
  port: number,
): ChildProcess {
  const all = { ...SETTINGS, ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const [command, ...args] = commandLine(runner, "postgres", [
    ...["-D", folder.cluster, "-p", String(port), "-h", "127.0.0.1"],
    ...(process.platform === "win32" ? [] : ["-k", ""]),
    ...flags,
  ]);
  const child = spawn(command!, args, {
    ...runner.owner,
    env: cleanEnvironment(),
    stdio: ["ignore", "ignore", "pipe"],
    // Its own process group: a Ctrl-C at the terminal is for us to translate, not for Postgres.
    detached: process.platform !== "win32",
    windowsHide: true,
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => log.write(text));
  return child;
}

function isReady(child: ChildProcess, log: BoundedLog): Promise<boolean> {
  return new Promise(resolve => {
    const settle = (ready: boolean): void => {
      child.stderr!.off("data", watch);
      resolve(ready);
    };
    const watch = (text: string): void => {
      if (text.includes("ready to accept connections")) settle(true);
    };
    child.stderr!.on("data", watch);
    child.once("error", error => {
      log.write(`${error.message}\n`);
      settle(false);
    });
    child.once("close", () => settle(false));
  });
}

function running(child: ChildProcess, port: number, options: StartOptions): RunningPostgres {
  const exited = new Promise<void>(resolve => child.once("exit", () => resolve()));
  const { folder, runner } = options;
  return {
    port,
    pid: child.pid!,
    exited,
    async stop(mode = "fast") {
      if (process.platform === "win32") {
        await execute(runner, "pg_ctl", ["stop", "-D", folder.cluster, "-m", mode]).catch(() => {
          child.kill(); // It is ending already, or pg_ctl cannot reach it: be sure.
        });
      } else {
        child.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
      }
      const insist = setTimeout(() => child.kill("SIGQUIT"), STOP_TIMEOUT_MS);
      await exited;
      clearTimeout(insist);
    },
  };
}

function startFailure(folder: DataFolder, log: BoundedLog): Unavailable {
  const full = /No space left on device/.test(log.tail());
  return new Unavailable(
    `the embedded Postgres did not start (its log: ${folder.log}):\n${log.tail()}\n` +
      (full
        ? "free some disk space, or set NOETL_DATA_DIR to another disk"
        : "set DATABASE_URL to use a Postgres of your own"),
  );
}

/**
 * Deals with the server of a keeper that was killed. Where servers are tied to their keeper it is
 * already stopping; elsewhere it is told to. A lock file whose pid now belongs to a stranger (after
 * a reboot), or to a zombie, gets our pid: Postgres takes its parent's pid for a stale lock, yet
 * still checks that nobody uses the old server's shared memory.
 */
async function clearPredecessor(folder: DataFolder, runner: Runner): Promise<void> {
  if (process.platform === "win32") {
    const stop = ["stop", "-D", folder.cluster, "-m", "fast"];
    await execute(runner, "pg_ctl", stop).catch(() => undefined); // Mostly: there is none.
    return;
  }
  const lockFile = join(folder.cluster, "postmaster.pid");
  const pid = await lockPid(lockFile);
  if (!pid || !send(pid, 0)) return;
  const impatientAt = Date.now() + STOP_TIMEOUT_MS;
  for (let signal: NodeJS.Signals = "SIGINT"; ;) {
    if (!(await programOf(pid)).includes(folder.cluster)) break;
    send(pid, signal);
    if (Date.now() > impatientAt) signal = "SIGQUIT";
    await pause(20);
  }
  const text = await readFile(lockFile, "utf8").catch(() => undefined);
  if (text && Number.parseInt(text) === pid) {
    await writeFile(lockFile, text.replace(/^\d+/, String(process.pid)));
  }
}

async function lockPid(lockFile: string): Promise<number> {
  const text = await readFile(lockFile, "utf8").catch(() => "");
  return Number.parseInt(text) || 0;
}

/** Whether there is such a process. A zombie counts, as it does for Postgres. */
function send(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The command line of a process; empty for one that has ended, reaped or not. */
async function programOf(pid: number): Promise<string> {
  if (process.platform === "linux") {
    return readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  }
  const ps = promisify(execFile)("ps", ["-ww", "-o", "command=", "-p", String(pid)]);
  return ps.then(
    ({ stdout }) => stdout,
    () => "",
  );
}

/** A loopback port nobody listens on: the preferred one when it is free. */
async function freePort(preferred: number): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const random = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    const port = attempt === 0 && preferred ? preferred : random;
    if (await isFree(port)) return port;
  }
  throw new Unavailable(`no free port on 127.0.0.1 between ${FIRST_PORT} and ${LAST_PORT}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
      .once("error", () => resolve(false))
      .listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
