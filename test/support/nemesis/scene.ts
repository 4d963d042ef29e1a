// All that a nemesis plays with: a cluster with wires that can fail, its keeper, and executions.
import { randomBytes } from "node:crypto";
import { ask, seeded } from "../actors.ts";
import { startCluster, type Cluster } from "../cluster.ts";
import { startServer as startPostgres, type TestServer } from "../postgres.ts";
import type { Env } from "../process.ts";
import { sight } from "../submitted.ts";
import { Feeder } from "./feeder.ts";
import { Keeper } from "./keeper.ts";
import { TABLES, type Between } from "./kitchen-sink.ts";
import { startUpstream, type Upstream } from "./upstream.ts";
import { layWires, type Wires } from "./wires.ts";

export interface Scene {
  cluster: Cluster;
  keeper: Keeper;
  feeder: Feeder;
  upstream: Upstream;
  wires: Wires;
  /** Of the runtime, and of the user. */
  postgres: TestServer;
  users: TestServer;
  /** What must be nowhere. */
  secrets: string[];
  /** What is open in the store, and what the processes said last. */
  describe(): Promise<string>;
  close(): Promise<void>;
}

export interface SceneOptions {
  /** Of everything that is drawn. */
  seed: number;
  /** No process lives longer. */
  lifeMs: number;
  servers?: number;
  workers?: number;
  abreast?: number;
  cancelPercent?: number;
  /** An execution that has not ended by then never does. */
  endMaxMs?: number;
  env?: Env;
}

/** Whole numbers from a seed. */
export function betweenOf(seed: number): Between {
  const next = seeded(seed);
  return (least, most) => least + Math.floor(next() * (most - least + 1));
}

/** Leases are short, so that what a death costs is seen soon. */
export const LEASE_SECONDS = 3;
/** Of what a process has said. */
const SAID_CHARS = 3_000;
/** Few, so that somebody else can have them all. */
const CONNECTIONS = "70";

/** Sets everything up; resolves when executions are in flight. */
export async function setScene(options: SceneOptions): Promise<Scene> {
  const { seed, lifeMs, servers = 2, workers = 3 } = options;
  const canary = `canary-${randomBytes(12).toString("hex")}`;
  const [postgres, users, upstream] = await Promise.all([
    startPostgres({ settings: { max_connections: CONNECTIONS } }),
    startPostgres({ settings: { max_connections: CONNECTIONS } }),
    startUpstream(canary, seeded(seed)),
  ]);
  const secrets = [canary, ...[postgres, users].map(({ url }) => new URL(url).password)];
  const { wires, between: lay } = layWires(secrets);
  const cluster = await startCluster({
    ...{ servers, workers, postgres, users, between: lay },
    program: { entry: "test/support/nemesis/entry.ts", lifeMs },
    env: {
      NOETL_COMMAND_LEASE_SECONDS: String(LEASE_SECONDS),
      NOETL_WORKER_BEAT_SECONDS: "1",
      NOETL_CREDENTIAL_NEMESIS_API: JSON.stringify({ type: "bearer", data: { token: canary } }),
      ...options.env,
    },
  });
  await ask(cluster.target.direct, TABLES);
  const keeper = new Keeper(cluster);
  const feeder = new Feeder({
    ...{ keeper, storeUrl: cluster.store.direct, upstreamUrl: upstream.url },
    between: number => betweenOf(seed + number),
    abreast: options.abreast ?? 3,
    cancelPercent: options.cancelPercent ?? 12,
    endMaxMs: options.endMaxMs,
  });
  await feeder.start();
  return {
    ...{ cluster, keeper, feeder, upstream, wires, postgres, users, secrets },
    async describe() {
      const said = keeper.members.map(({ name, said }) => `${name}: ${said.slice(-SAID_CHARS)}`);
      return [await sight(cluster.store.direct), ...said].join("\n");
    },
    async close() {
      keeper.stop();
      await Promise.all(keeper.members.map(one => one.kill()));
      await upstream.close();
      await cluster.close();
      await wires.close();
      await Promise.all([postgres.remove(), users.remove()]);
    },
  };
}
