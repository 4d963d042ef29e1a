// The gates of a worker, as its settings want them: one for each class of work, over providers that
// both classes share.
import type { Service } from "moleculer";
import type { Runtime } from "../../../mixins/runtime.ts";
import { WORK_CLASSES, type WorkClass } from "../../../schemas/work-class.ts";
import type { Ledger } from "../ledger.ts";
import { Asked } from "./asked.ts";
import { CapacityGate } from "./gate.ts";
import { kubernetesProvider } from "./kubernetes.ts";
import { poolsProvider } from "./pools.ts";
import { probeProvider } from "./probe.ts";
import type { CapacityProvider } from "./provider.ts";
import { reservedProvider } from "./reserved.ts";
import { Watched } from "./watched.ts";

export interface Gates {
  /** What stands at the gate of a class. */
  readonly of: Record<WorkClass, { gate: CapacityGate; watched: readonly Watched[] }>;
  /** Somebody outside this process is asked: a slot must not wait for work with what they gave. */
  readonly isAskingOthers: boolean;
  /** So many items that were admitted have ended. */
  ended(count: number): void;
  /** Workers that live, this one included. */
  setWorkers(count: number): void;
  close(): Promise<void>;
}

export interface GateParts {
  runtime: Pick<Runtime, "settings" | "clock" | "database">;
  service: Service;
  ledger: Ledger;
  incarnation: string;
}

export function openGates(parts: GateParts): Gates {
  const { runtime, service, ledger } = parts;
  const { prefetch, worker } = runtime.settings;
  const { clock } = runtime;
  let workers = 1;
  const peers = () => workers * WORK_CLASSES.length;
  const asked = (provider: CapacityProvider) =>
    new Asked(provider, { clock, settings: prefetch, peers });
  const others = outsideProviders(parts).map(asked);
  const pools = asked(
    poolsProvider(service.broker, {
      threshold: worker.poolWaitingThreshold,
      pollMs: worker.throttlePollMs,
    }),
  );

  function gateOf(workClass: WorkClass) {
    const all = workClass === "database" ? [pools, ...others] : others;
    const watch = { consumer: workClass, clock, settings: prefetch, log: service.logger };
    const watched = all.map(one => new Watched(one, watch));
    const slots = {
      reserve: (signal: AbortSignal) => ledger.reserve(workClass, signal),
      takeOne: (signal: AbortSignal) => ledger.takeOne(workClass, signal),
      unreserve: (count: number) => ledger.unreserve(workClass, count),
    };
    const gate = new CapacityGate({ clock, slots, providers: watched, settings: prefetch });
    return { gate, watched };
  }

  return {
    of: { general: gateOf("general"), database: gateOf("database") },
    isAskingOthers: others.length > 0,
    ended(count) {
      for (const { provider } of others) provider.release?.(count);
    },
    setWorkers: count => void (workers = Math.max(1, count)),
    close: async () => {
      await Promise.all(others.map(async ({ provider }) => provider.close?.()));
    },
  };
}

/** Those that NOETL_PREFETCH_GATE names, and the quota of Kubernetes where its name is given. */
function outsideProviders({ runtime, incarnation }: GateParts): CapacityProvider[] {
  const { clock, database, settings } = runtime;
  const { gate, ratio, ...one } = settings.prefetch;
  const providers: CapacityProvider[] = [];
  if (gate.includes("quota")) {
    const leaseMs = settings.command.leaseMs;
    const { reservedName: name, reservedLimit: limit } = one;
    const kept = { database, clock, name, limit, ratio, holder: incarnation, leaseMs };
    providers.push(reservedProvider(kept));
  }
  if (gate.includes("http") && one.httpUrl) providers.push(probeProvider(one.httpUrl, ratio));
  if (one.quotaName !== undefined && one.kubernetesHost !== undefined) {
    const place = {
      ...{ host: one.kubernetesHost, port: one.kubernetesPort },
      ...{ serviceAccount: one.serviceAccount, namespace: one.quotaNamespace },
      ...{ name: one.quotaName, resource: one.quotaResource },
    };
    providers.push(kubernetesProvider(place, ratio));
  }
  return providers;
}
