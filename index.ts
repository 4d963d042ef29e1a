/** NoETL inside another Moleculer app: durable playbooks as services of its broker. */
import type { ServiceBroker } from "moleculer";
import { refuseAlone, startRuntime, type Role } from "./cli/runtime.ts";
import { loadSettings, type SettingRecord } from "./schemas/env.ts";

/** For an app's own broker: `cacher: new NatsKvCacher({ connection, bucket })`. */
export { NatsKvCacher } from "./mixins/cacher/nats-kv.ts";
export { replCommands } from "./cli/repl-commands.ts";
export type { Role } from "./cli/runtime.ts";
export type { SettingRecord } from "./schemas/env.ts";

export interface NoetlOptions {
  /**
   * The app's broker, started or not, with options of its own: its namespace, transporter,
   * serializer and logger are used as they are. One of our own, started, when absent.
   */
  broker?: ServiceBroker;
  /** `server` and `worker` when absent: everything but the HTTP door. */
  roles?: readonly Role[];
  /** Settings by their environment names (`noetl config` lists them); they win over `env`. */
  settings?: SettingRecord;
  /** Where all other settings come from: the environment of the process when absent. */
  env?: Record<string, string | undefined>;
}

export interface Noetl {
  broker: ServiceBroker;
  /** Lets running work finish, NOETL_DRAIN_SECONDS at most, and takes no more. Repeatable. */
  drain(): Promise<void>;
  /**
   * Drains, ends our services and closes our connections; the app's broker goes on without us.
   * Stopping that broker does the same. Repeatable.
   */
  close(): Promise<void>;
}

/**
 * Opens the database (the embedded one without DATABASE_URL), brings it up to date and creates our
 * services in the broker. Throws Rejected for a setting or a service name that cannot be, and
 * Unavailable when the database cannot be had; nothing is left behind then.
 *
 *     const broker = new ServiceBroker({ transporter: "NATS" });
 *     await createNoetl({ broker });
 *     await broker.start();
 *     await broker.call("executions.start", { path: "orders/load", payload: { day: 1 } });
 */
export async function createNoetl(options: NoetlOptions = {}): Promise<Noetl> {
  const { broker, roles = ["server", "worker"], settings: given, env } = options;
  const settings = loadSettings(env, given);
  refuseAlone(settings, roles);
  const runtime = await startRuntime({
    settings,
    roles,
    scope: "all",
    ...(broker && { broker }),
  });
  for (const name of settings.unknownVariables) {
    runtime.broker.logger.warn({ name }, "noetl.unknown_setting");
  }
  return { broker: runtime.broker, drain: runtime.drain, close: runtime.stop };
}
