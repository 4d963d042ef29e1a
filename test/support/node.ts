// One process of the runtime inside a test: all roles over a database of the test's own.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServiceBroker } from "moleculer";
import { startRuntime, type Role, type RunningRuntime } from "../../cli/runtime.ts";
import { loadSettings } from "../../schemas/env.ts";
import type { ExecutionView } from "../../services/executions/read.ts";

export interface NodeOptions {
  /** Database to use; the embedded one of `dataDir` when absent. */
  url?: string;
  dataDir?: string;
  roles?: Role[];
  scope?: "all" | "own";
  /** More settings, by environment name. */
  env?: Record<string, string>;
}

export interface TestNode {
  broker: ServiceBroker;
  runtime: RunningRuntime;
  dataDir: string;
  call<T = never>(action: string, params?: object): Promise<T>;
  /** Starts a playbook and waits for its end. */
  run(playbook: string, payload?: object): Promise<ExecutionView>;
  stop(): Promise<void>;
}

/** Starts a node with quiet logs. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), "noetl-node-")));
  const settings = loadSettings({
    NOETL_DATA_DIR: dataDir,
    NOETL_LOG_LEVEL: "error",
    NOETL_PORT: "0",
    NOETL_DRAIN_SECONDS: "5",
    ...(options.url && { DATABASE_URL: options.url }),
    ...options.env,
  });
  const runtime = await startRuntime({
    settings,
    roles: options.roles ?? ["server", "worker"],
    scope: options.scope ?? "all",
  });
  const { broker } = runtime;
  return {
    broker,
    runtime,
    dataDir,
    call: (action, params) => broker.call(action, params ?? {}),
    run: (playbook, payload) => run(broker, playbook, payload),
    stop: () => runtime.stop(),
  };
}

/** Waits for an execution to end, however long that takes within `limitMs`. */
export async function ended(
  broker: ServiceBroker,
  execution_id: string,
  limitMs = 60_000,
): Promise<ExecutionView> {
  const until = Date.now() + limitMs;
  for (;;) {
    const view = await broker.call<ExecutionView, object>(
      "executions.wait",
      { execution_id, timeout_ms: 10_000 },
      { timeout: 0 },
    );
    if (view.status !== "RUNNING" || Date.now() > until) return view;
  }
}

async function run(broker: ServiceBroker, playbook: string, payload: object = {}) {
  const started = await broker.call<{ execution_id: string }, object>("executions.start", {
    playbook,
    payload,
  });
  return ended(broker, started.execution_id);
}
