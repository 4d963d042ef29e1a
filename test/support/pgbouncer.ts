// A real PgBouncer of the tests' own, in transaction mode, in front of one Postgres.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { chown, mkdtemp, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { atEnd, atExit } from "./hooks.ts";

/** Connections to one database: kept ready, and lent on top when somebody has waited. */
export interface Backends {
  size: number;
  reserve: number;
}

export interface TestPgBouncer {
  readonly port: number;
  /** The same URL through this PgBouncer. */
  through(url: string): string;
  stop(): Promise<void>;
}

const READY_MS = 10_000;
/** Somebody may take the port between the look and the start. */
const START_TRIES = 5;
/** It refuses to run as root. */
const UNPRIVILEGED = ["nobody", "postgres", "daemon"];

/** `PGBOUNCER_BIN`, or the PATH; undefined where there is none, or root has nobody to run it as. */
export function pgBouncerBinary(): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin"];
  const places = [process.env["PGBOUNCER_BIN"], ...folders.map(one => join(one, "pgbouncer"))];
  const found = places.find(place => place !== undefined && existsSync(place));
  return isRoot() && (!hasSetpriv() || !someUser()) ? undefined : found;
}

/** Says why a test or a suite is skipped for want of it. */
export function sayNoPgBouncer(): void {
  process.stdout.write("      skipped: no pgbouncer (PGBOUNCER_BIN or PATH)\n");
}

const isRoot = (): boolean => process.getuid?.() === 0;

function hasSetpriv(): boolean {
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .some(folder => existsSync(join(folder, "setpriv")));
}

interface User {
  uid: number;
  gid: number;
}

/** Somebody for it to run as, when we are root. */
export function unprivileged(): User | undefined {
  return isRoot() ? someUser() : undefined;
}

function someUser(): User | undefined {
  for (const name of UNPRIVILEGED) {
    try {
      const ask = (what: string): number => {
        const stdio = ["ignore", "pipe", "ignore"] as const;
        return Number(execFileSync("id", [what, name], { stdio: [...stdio] }).toString());
      };
      return { uid: ask("-u"), gid: ask("-g") };
    } catch {
      // Not on this system.
    }
  }
  return undefined;
}

/**
 * Starts one on a free loopback port: any database of the server behind `url`, as its user, each
 * with so many connections at most. It dies with this process.
 */
export async function startPgBouncer(
  binary: string,
  url: string,
  backends: Backends = { size: 20, reserve: 5 },
): Promise<TestPgBouncer> {
  const folder = await mkdtemp(join(tmpdir(), "noetl-pgbouncer-"));
  const forget = (): void => rmSync(folder, { recursive: true, force: true });
  const isForgotten = atExit(forget);
  const user = unprivileged();
  if (user) await chown(folder, user.uid, user.gid);
  const file = join(folder, "pgbouncer.ini");
  let child: ChildProcess | undefined;
  let port = 0;
  for (let tries = 1; !child; tries += 1) {
    port = await freePort();
    await writeFile(file, settings(url, port, backends), { mode: 0o600 });
    if (user) await chown(file, user.uid, user.gid);
    child = await begin([...lent(user), binary, file]).catch((error: unknown) => {
      if (tries === START_TRIES) throw error;
      return undefined;
    });
  }
  const running = child;
  const bouncer: TestPgBouncer = {
    port,
    through: direct => direct.replace(/:\d+(?=[/?]|$)/, `:${port}`),
    async stop() {
      if (running.exitCode !== null || running.signalCode !== null) return;
      const gone = new Promise(resolve => running.once("exit", resolve));
      running.kill("SIGTERM");
      await gone;
      forget();
      isForgotten();
    },
  };
  atEnd(() => bouncer.stop());
  return bouncer;
}

/**
 * A server's session serves whoever comes next, in turn: what a transaction leaves in its session
 * is not there for the next one.
 */
function settings(url: string, port: number, { size, reserve }: Backends): string {
  const { hostname, port: behind, username, password } = new URL(url);
  const secret = decodeURIComponent(password);
  return `[databases]
* = host=${hostname} port=${behind} user=${username} password=${secret}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
min_pool_size = ${Math.min(3, size)}
default_pool_size = ${size}
reserve_pool_size = ${reserve}
max_client_conn = 1000
query_wait_timeout = 10
server_login_retry = 0.2
log_connections = 0
log_disconnections = 0
`;
}

/** As somebody without rights, who is told when we die. */
export function lent(user: User | undefined): string[] {
  const tied = hasSetpriv() ? ["setpriv", "--pdeathsig", "TERM"] : [];
  if (!user) return tied.length > 0 ? [...tied, "--"] : [];
  const ids = [`--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"];
  return [...tied, ...ids, "--"];
}

export function freePort(): Promise<number> {
  return new Promise(resolve => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Resolves when it serves; `env` is the whole environment, ours when absent. */
export function begin(
  [command = "", ...args]: string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], env });
  child.once(
    "exit",
    atExit(() => child.kill("SIGKILL")),
  );
  return new Promise((resolve, reject) => {
    let said = "";
    const fail = (why: string): void => reject(new Error(`pgbouncer ${why}: ${said}`));
    const timer = setTimeout(() => fail("is not ready"), READY_MS);
    child.once("error", error => fail(error.message));
    child.once("exit", code => fail(`ended (${code})`));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-4_000);
      if (!/process up/.test(said)) return;
      clearTimeout(timer);
      resolve(child);
    });
  });
}
