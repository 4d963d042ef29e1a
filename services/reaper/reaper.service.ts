// The reaper: wakes streams whose wake_at has passed, and keeps house. It decides nothing.
import type { Service, ServiceSchema } from "moleculer";
import { byOwner, callOwner } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { DueStream } from "../../mixins/postgres/stream.ts";

export interface ReaperOptions {
  /**
   * `own`: only streams this node decided last (a one-shot run beside others); `all`: everybody's.
   */
  scope: "own" | "all";
  /** Milliseconds between two sweeps. */
  sweepMs?: number;
}

/** Streams woken by one sweep at most. */
const SWEEP_STREAMS_MAX = 500;
/** A picked stream comes up again after this when its waking came to nothing. */
const PICK_BACKOFF_MS = 5_000;
/** The next sweep waits for the waking of this one so long. */
const WAKE_PATIENCE_MS = 1_000;
const HOUSEKEEPING_MS = 60_000;
/** How long an owner may take to look after what it was woken for. */
const WAKE_MS = 30_000;
/** Weeks of event partitions kept ahead. */
const PARTITIONS_AHEAD = 2;
/** A worker's row is kept so long, and longer where a silent holder may hold its work longer. */
const WORKERS_KEPT_SECONDS = 3_600;
/** Longer than any burst is refilled by a sensible rate. */
const BUCKETS_KEPT_SECONDS = 86_400;

/** The service `reaper` over a process's runtime. */
export default function reaperService(
  runtime: Runtime,
  options: ReaperOptions = { scope: "all" },
): ServiceSchema {
  const { clock, store } = runtime;
  const silenceSeconds = runtime.settings.command.heartbeatTimeoutMs / 1_000;
  const workersKeptSeconds = Math.max(WORKERS_KEPT_SECONDS, 2 * silenceSeconds);
  const sweepMs = options.sweepMs ?? 500;
  let stopped = false;
  let cancelSweep = () => {};
  let cancelHousekeeping = () => {};
  let sweeping: Promise<void> = Promise.resolve();

  async function sweep(service: Service): Promise<void> {
    try {
      const owner = options.scope === "own" ? runtime.nodeId : undefined;
      const due = await store.pickDue({
        limit: SWEEP_STREAMS_MAX,
        backoffMs: PICK_BACKOFF_MS,
        owner,
      });
      await patiently(wake(service, due));
    } catch (error) {
      service.logger.warn({ err: error }, "reaper.sweep_failed");
    }
    if (!stopped) cancelSweep = clock.after(sweepMs, () => start(service));
  }

  /** One stream that is slow to wake must not keep the others asleep: it is picked again anyhow. */
  async function patiently(waking: Promise<void>): Promise<void> {
    let cancel = () => {};
    const patience = new Promise<void>(resolve => {
      cancel = clock.after(WAKE_PATIENCE_MS, resolve);
    });
    await Promise.race([waking, patience]);
    cancel();
  }

  function start(service: Service): void {
    sweeping = sweep(service);
  }

  async function housekeep(service: Service): Promise<void> {
    try {
      await store.keepHouse({
        partitionsAhead: PARTITIONS_AHEAD,
        workersKeptSeconds,
        bucketsKeptSeconds: BUCKETS_KEPT_SECONDS,
      });
    } catch (error) {
      service.logger.warn({ err: error }, "reaper.housekeeping_failed");
    }
    if (!stopped) cancelHousekeeping = clock.after(HOUSEKEEPING_MS, () => void housekeep(service));
  }

  return {
    name: "reaper",
    started(this: Service) {
      start(this);
      void housekeep(this);
      return Promise.resolve();
    },
    async stopped() {
      stopped = true;
      cancelSweep();
      cancelHousekeeping();
      await sweeping;
    },
  };
}

/** Tells the owners of due streams, one call an owner and kind. */
async function wake(service: Service, due: DueStream[]): Promise<void> {
  const { broker, logger } = service;
  const calls = [...Map.groupBy(due, stream => stream.kind)].flatMap(([kind, streams]) =>
    byOwner(broker, kind, streams).map(async group => {
      const params = { streams: group };
      const call = { service: kind, action: "wake", params, timeoutMs: WAKE_MS };
      await callOwner(broker, group[0]?.stream_id ?? "", call).catch((error: unknown) =>
        logger.warn({ err: error, kind }, "reaper.wake_failed"),
      );
    }),
  );
  await Promise.all(calls);
}
