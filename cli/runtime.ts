/**
 * Puts a broker together for some roles: database, migrations, services; and takes it apart again.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { link, mkdir, readFile, unlink, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ServiceBroker } from "moleculer";
import type { Logger } from "moleculer";
import { brokerOptions } from "../moleculer.config.ts";
import { createLog } from "../mixins/logging/pino.ts";
import { countPackets } from "../mixins/middleware/packets.ts";
import { joinEmbedded } from "../mixins/postgres/embedded.ts";
import { createSilentDoorbell, type Doorbell } from "../mixins/notifications.ts";
import { openDatabase } from "../mixins/postgres/index.ts";
import type { Database } from "../mixins/postgres/index.ts";
import { migrate } from "../mixins/postgres/migrate.ts";
import { openJetStream } from "../mixins/jetstream.ts";
import type { NatsPort } from "../mixins/jetstream.ts";
import { openResultStore } from "../mixins/result-store/open.ts";
import { isUnreachable } from "../mixins/routing.ts";
import { createRuntime } from "../mixins/runtime.ts";
import { databaseUrl } from "../schemas/env.ts";
import { Rejected } from "../schemas/errors.ts";
import { house } from "./hosting.ts";
import type { Settings } from "../schemas/env.ts";
import { createServices } from "./services.ts";
import type { Role, ServicePlan } from "./services.ts";

export type { Role } from "./services.ts";

export interface RunningRuntime {
  broker: ServiceBroker;
  /** With its password: for the credential of the demo, never for a log. */
  databaseUrl: string;
  /** Lets running work finish, for NOETL_DRAIN_SECONDS at most, and takes no more. Repeatable. */
  drain(): Promise<void>;
  /** Drains, stops the services, closes the pools and leaves Postgres. Repeatable. */
  stop(): Promise<void>;
}

export interface RuntimeChoice {
  settings: Settings;
  roles: readonly Role[];
  /**
   * `all` goes on with whatever is unfinished in the database; `own` only with what it started or
   * resumed.
   */
  scope: "all" | "own";
  /** Of the app that our services join, started or not; one of our own when absent. */
  broker?: ServiceBroker;
  /** Another way for rings to reach the workers; the one of the settings when absent. */
  doorbell?: Doorbell;
}

export interface OpenStore {
  database: Database;
  url: string;
  /** Migrations that this opening has applied. */
  applied: string[];
  close(): Promise<void>;
}

/**
 * Starts the services of these roles in this process. Throws Unavailable when the database or the
 * port cannot be had, Rejected when it belongs to a newer build; nothing is left running then.
 */
export async function startRuntime(choice: RuntimeChoice): Promise<RunningRuntime> {
  const { settings } = choice;
  const store = await openStore(settings, choice.broker?.getLogger("noetl"));
  try {
    const broker = choice.broker ?? new ServiceBroker(brokerOptions(named(settings)));
    const bell = await openDoorbell(choice, broker).catch(async (error: unknown) => {
      // A broker that never starts is never stopped either, and its cache is open from the first.
      if (!choice.broker) await broker.cacher?.close();
      throw error;
    });
    // Closed in this order at the end, and when the start fails half-way.
    const close = () => Promise.resolve(bell?.close()).finally(() => store.close());
    try {
      const plan = await planServices(choice, store, broker, bell);
      return await running(broker, plan, { url: store.url, close, ours: !choice.broker });
    } catch (error) {
      await bell?.close();
      throw error;
    }
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Services that run until `stop`, or until their broker is stopped by whoever owns it. */
async function running(
  broker: ServiceBroker,
  plan: ServicePlan,
  store: { url: string; close(): Promise<void>; ours: boolean },
): Promise<RunningRuntime> {
  let drained: Promise<void> | undefined;
  let closed: Promise<void> | undefined;
  let stopped: Promise<void> | undefined;
  const drain = () => (drained ??= plan.drain(broker).catch(passWhenAbsent));
  const close = () => (closed ??= store.close());
  const { ours } = store;
  const housed = await house(broker, plan.schemas, { ours, leaving: drain, left: close });
  async function stop(): Promise<void> {
    await drain();
    try {
      await housed.end();
    } finally {
      await close();
    }
  }
  return { broker, databaseUrl: store.url, drain, stop: () => (stopped ??= stop()) };
}

/**
 * Opens the database, starting the embedded one when no other is named, and brings it up to date.
 */
export async function openStore(
  settings: Settings,
  log: Pick<Logger, "info"> = createLog(settings.logging),
): Promise<OpenStore> {
  const given = databaseUrl(settings);
  const embedded =
    given === undefined
      ? await joinEmbedded(settings.node.dataDir, {
          log: (fields, message) => log.info(fields, message),
        })
      : undefined;
  const url = given ?? embedded?.url ?? "";
  const { poolSize, poolWaitMs } = settings.database;
  const database = openDatabase({ url, size: poolSize, connectTimeoutMs: poolWaitMs });
  async function close(): Promise<void> {
    await database.close();
    await embedded?.leave();
  }
  try {
    return { database, url, applied: await migrate(database), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function planServices(
  { settings, roles, scope }: RuntimeChoice,
  { database }: OpenStore,
  broker: ServiceBroker,
  bell: ClosableDoorbell | undefined,
): Promise<ServicePlan> {
  const runtime = await createRuntime({
    settings: await withEncryptionKey(settings),
    nodeId: broker.nodeID,
    database,
    results: openResultStore(settings, database),
    ...(bell && { doorbell: bell.doorbell }),
    ...(bell?.nats && { nats: bell.nats }),
  });
  countPackets(runtime.metrics, broker);
  return createServices(runtime, roles, scope);
}

/** JetStream when there is a NATS, the bell inside this process when not. */
async function openDoorbell(
  { settings, roles, doorbell }: RuntimeChoice,
  broker: ServiceBroker,
): Promise<ClosableDoorbell | undefined> {
  const given = doorbell ?? (isOutsideNats(settings, roles) ? createSilentDoorbell() : undefined);
  if (given || !settings.nats.url) {
    return given && { doorbell: given, close: async () => undefined };
  }
  const logger = broker.getLogger("doorbell");
  const opened = await openJetStream(settings, (fields, message) => logger.warn(fields, message));
  return { doorbell: opened, nats: opened, close: () => opened.close() };
}

interface ClosableDoorbell {
  doorbell: Doorbell;
  nats?: NatsPort;
  close(): Promise<void>;
}

/** A worker alone that has no NATS: all it needs it asks a server for, over HTTP. */
function isOutsideNats({ nats, events, http }: Settings, roles: readonly Role[]): boolean {
  const isAlone = roles.includes("worker") && !roles.includes("server");
  const isHttp = events.transport === "http" && http.serverUrl !== undefined;
  return isAlone && isHttp && nats.url === undefined;
}

/**
 * A server and a worker find each other through NATS and one database: neither has a default. A
 * worker may come over HTTP instead. Throws Rejected when roles that are only one of the two lack
 * them.
 */
export function refuseAlone(settings: Settings, roles: readonly Role[]): void {
  if (roles.includes("server") === roles.includes("worker")) return;
  const missing = [
    ...(settings.nats.url || isOutsideNats(settings, roles) ? [] : ["NATS_URL"]),
    ...(databaseUrl(settings) ? [] : ["DATABASE_URL"]),
  ];
  if (missing.length === 0) return;
  throw new Rejected(
    `${missing.join(" and ")} must be set for a server or a worker of its own; ` +
      `both in one process need neither ('noetl start')`,
    422,
  );
}

/** A worker that was not started yet, or has stopped, has nothing to finish. */
function passWhenAbsent(error: unknown): void {
  if (!isUnreachable(error)) throw error;
}

let brokers = 0;

/**
 * A node id of its own for every broker of this process: owners of streams are told apart by it.
 */
function named(settings: Settings): Settings {
  brokers += 1;
  const mark = brokers === 1 ? "" : `-${brokers}`;
  const id = settings.node.id ?? `${hostname()}-${process.pid}${mark}`;
  return { ...settings, node: { ...settings.node, id } };
}

/**
 * On a laptop nobody sets NOETL_ENCRYPTION_KEY: beside the embedded database a key is made once and
 * kept in a file that only its owner can read. With a database elsewhere the operator has to give
 * one.
 */
async function withEncryptionKey(settings: Settings): Promise<Settings> {
  if (settings.credentials.encryptionKey || databaseUrl(settings) !== undefined) return settings;
  const file = join(settings.node.dataDir, "encryption.key");
  await mkdir(settings.node.dataDir, { recursive: true });
  if (!existsSync(file)) await makeKey(file);
  const encryptionKey = (await readFile(file, "utf8")).trim();
  return { ...settings, credentials: { ...settings.credentials, encryptionKey } };
}

/** Of two processes that start at once one makes the key, whole, and both read the same. */
async function makeKey(file: string): Promise<void> {
  const draft = `${file}.${process.pid}`;
  await writeFile(draft, randomBytes(32).toString("base64"), { mode: 0o600 });
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await unlink(draft);
}
