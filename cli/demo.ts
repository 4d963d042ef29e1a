/**
 * `npm run demo`: examples/orders.yaml over a sample API, on the embedded Postgres, from nothing.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { startSampleApi } from "../examples/sample-api.ts";
import { createDemoDatabase } from "../mixins/postgres/database.ts";
import type { Settings } from "../schemas/env.ts";
import { runtimeBackend } from "./backend.ts";
import { commandSettings, finishWith } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { follow } from "./follow.ts";
import { openStore, startRuntime } from "./runtime.ts";
import { openScreen, painter, print, say } from "./terminal.ts";

const PLAYBOOK = fileURLToPath(new URL("../examples/orders.yaml", import.meta.url));

export async function demo(options: GlobalOptions): Promise<ExitCode> {
  const json = options.json ?? false;
  const api = await startSampleApi();
  try {
    if (!json) introduce(api.url);
    const code = await runOrders(embedded(commandSettings({ json })), api.url, json);
    if (!json && code === EXIT.completed) conclude();
    return code;
  } finally {
    await api.close();
  }
}

/** The demo shows what happens with no servers at all, whatever the environment names. */
function embedded(settings: Settings): Settings {
  const { database, nats, events, http } = settings;
  return {
    ...settings,
    database: { ...database, url: undefined, host: undefined },
    nats: { ...nats, url: undefined },
    events: { ...events, transport: "call" },
    http: { ...http, serverUrl: undefined },
  };
}

async function runOrders(settings: Settings, apiUrl: string, json: boolean): Promise<ExitCode> {
  say(`Postgres starts in ${settings.node.dataDir}/ …`);
  // Held until the runtime has joined, so that Postgres is not stopped and started in between.
  const store = await openStore(settings);
  let runtime;
  try {
    await createDemoDatabase(store.database);
    const credential = JSON.stringify({ type: "postgres", data: targetOf(store.url) });
    const credentialVariables = { ...settings.credentialVariables, noetl_demo: credential };
    const given = { ...settings, credentialVariables };
    runtime = await startRuntime({ settings: given, roles: ["server", "worker"], scope: "own" });
  } finally {
    await store.close();
  }
  const backend = runtimeBackend(runtime);
  try {
    const content = await readFile(PLAYBOOK, "utf8");
    const { path } = await backend.call<{ path: string }>("catalog.register", { content });
    const payload = { api_url: apiUrl };
    const { execution_id } = await backend.call<{ execution_id: string }>("executions.start", {
      ...{ path, payload },
    });
    return await follow(backend, execution_id, { json, descendants: true });
  } finally {
    await backend.close();
  }
}

/** The fields of a postgres credential, of the demo's database on the same server. */
function targetOf(url: string): Record<string, unknown> {
  const { hostname, port, username, password } = new URL(url);
  return {
    db_host: hostname,
    db_port: Number(port),
    db_user: decodeURIComponent(username),
    db_password: decodeURIComponent(password),
    db_name: "noetl_demo",
  };
}

function introduce(apiUrl: string): void {
  const paint = painter(openScreen().colored);
  say(paint("noetl demo", "bold"));
  say(`A sample API serves 120 orders at ${apiUrl}; every seventh answers 503 at first.`);
  say("examples/orders.yaml fetches all of them and upserts them into Postgres.");
}

function conclude(): void {
  const paint = painter(openScreen(process.stdout).colored);
  print("");
  print(paint("Next", "bold"));
  print("  npx noetl run examples/hello.yaml     the smallest playbook");
  print("  npx noetl list                        what has run");
  print("  npx noetl start                       the HTTP API, for long-running use");
}

if (import.meta.main) await finishWith({ json: false }, () => demo({}));
