// Real processes of the `noetl` command: begun, watched, signalled and ended, each by its own pid.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { atEnd, atExit } from "./hooks.ts";
import { ROOT } from "./source-files.ts";

/** No process of a test lives longer, unless it is told to; a test that needs more hangs. */
const LIFE_MAX_MS = 150_000;

/** Another program than the command, and for longer. */
export interface Program {
  /** Of the project: `cli/noetl.ts` when absent. */
  entry?: string;
  lifeMs?: number;
}

export interface Ended {
  /** null when a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface NoetlProcess {
  readonly pid: number;
  /** What it has said so far, both streams in one. */
  readonly said: string;
  readonly ended: Promise<Ended>;
  /** Waits until it has said this since it began; fails when it ends before, or takes long. */
  says(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray>;
  signal(name: "SIGINT" | "SIGTERM" | "SIGUSR2"): void;
  /** kill -9; resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGSTOP: it stands still in the middle of whatever it does, its connections open. */
  freeze(): void;
  /** SIGCONT: it goes on as if no time had passed. */
  thaw(): void;
}

export interface NoetlServer extends NoetlProcess {
  readonly url: string;
  /** Calls the API; the body is sent as JSON, or as it is when it is text. */
  ask(method: string, path: string, body?: unknown): Promise<Answer>;
}

export interface Answer {
  status: number;
  body: Record<string, unknown>;
}

export type Env = Record<string, string>;

const alive = new Set<ChildProcess>();
/** Of this test, for its failure. */
let begun: { args: string[]; said(): string }[] = [];
atExit(killAll);

function killAll(): void {
  for (const child of alive) child.kill("SIGKILL");
}

/** For `afterEach`: kills what a test left behind, and shows what was said in one that failed. */
export function endAll(this: Mocha.Context): void {
  if (this.currentTest?.state === "failed") {
    for (const { args, said } of begun) {
      process.stdout.write(`      noetl ${args.join(" ")} said:\n${said().slice(-4_000)}\n`);
    }
  }
  begun = [];
  killAll();
}

/** A data folder of a test's own, removed at the end. */
export async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "noetl-process-"));
  atEnd(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

let compiled: string | undefined;

/**
 * Most of a process's start is compiling, and one that is killed keeps nothing of it: this is done
 * once for all of them. The folder of what was compiled.
 */
function compiledOnce(): string {
  if (compiled !== undefined) return compiled;
  const folder = mkdtempSync(join(tmpdir(), "noetl-compiled-"));
  atExit(() => rmSync(folder, { recursive: true, force: true }));
  const url = pathToFileURL(join(ROOT, "cli/runtime.ts")).href;
  spawnSync(process.execPath, ["--input-type=module", "-e", `import("${url}")`], {
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: folder },
  });
  return (compiled = folder);
}

/** `noetl ARGS` with nothing of ours in its environment but `env`: begun, not waited for. */
export function begin(args: string[], env: Env, program: Program = {}): NoetlProcess {
  const { entry = "cli/noetl.ts", lifeMs = LIFE_MAX_MS } = program;
  const child = spawn(process.execPath, [join(ROOT, entry), ...args], {
    cwd: env["NOETL_DATA_DIR"] ?? tmpdir(),
    env: {
      PATH: process.env["PATH"],
      NODE_COMPILE_CACHE: compiledOnce(),
      NOETL_LOG_LEVEL: "warn",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  alive.add(child);
  const late = setTimeout(() => child.kill("SIGKILL"), lifeMs).unref();
  const seen = { stdout: "", stderr: "", said: "" };
  begun.push({ args, said: () => seen.said });
  const listeners = new Set<() => void>();
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      seen[name] += text;
      seen.said += text;
      for (const listener of listeners) listener();
    });
  }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject).once("close", code => {
      alive.delete(child);
      clearTimeout(late);
      resolve({ code, stdout: seen.stdout, stderr: seen.stderr });
      for (const listener of listeners) listener();
    });
  });
  return {
    pid: child.pid ?? 0,
    get said() {
      return seen.said;
    },
    ended,
    says: (pattern, limitMs = 30_000) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => fail(`did not say ${pattern} in ${limitMs} ms`), limitMs);
        function fail(what: string): void {
          finish();
          reject(new Error(`noetl ${args.join(" ")} ${what}; it said:\n${seen.said}`));
        }
        function finish(): void {
          clearTimeout(timer);
          listeners.delete(look);
        }
        function look(): void {
          const found = pattern.exec(seen.said);
          if (found) {
            finish();
            resolve(found);
          } else if (!alive.has(child)) fail(`ended before it said ${pattern}`);
        }
        listeners.add(look);
        look();
      }),
    signal: name => void child.kill(name),
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
    freeze: () => void child.kill("SIGSTOP"),
    thaw: () => void child.kill("SIGCONT"),
  };
}

/** `noetl ARGS` to its end. */
export function noetl(args: string[], env: Env): Promise<Ended> {
  return begin(args, env).ended;
}

/** `noetl start` on a free port, or with `fault` the entry whose doorbell fails. */
export function startServer(env: Env, fault: string[] = []): Promise<NoetlServer> {
  const entry = fault.length > 0 ? { entry: "test/support/fault-entry.ts" } : {};
  return beginServer(["start", ...fault], env, entry);
}

/** A program that serves the API, on a free port when none is named; resolves when it does. */
export async function beginServer(
  args: string[],
  env: Env,
  program?: Program,
): Promise<NoetlServer> {
  const settings = { NOETL_PORT: "0", NOETL_DRAIN_SECONDS: "5", ...env };
  const server = begin(args, settings, program);
  const [, url = ""] = await orKill(server, server.says(/serves (http:\/\/\S+)\/api/));
  return {
    ...server,
    get said() {
      return server.said;
    },
    url,
    ask: (method, path, body) => ask(`${url}/api${path}`, method, body),
  };
}

/** What a process is waited for; one that lets it down is ended. */
export function orKill<T>(child: NoetlProcess, waited: Promise<T>): Promise<T> {
  return waited.catch(async (error: unknown) => {
    await child.kill();
    throw error;
  });
}

async function ask(url: string, method: string, body: unknown): Promise<Answer> {
  const isText = typeof body === "string";
  const type = isText ? "application/yaml" : "application/json";
  const response = await fetch(url, {
    method,
    signal: AbortSignal.timeout(30_000),
    ...(body === undefined
      ? {}
      : { headers: { "content-type": type }, body: isText ? body : JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}
