// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what comes next.
import { randomUUID } from "node:crypto";
import type { Context, Service, ServiceSchema } from "moleculer";
import type { ClaimBatch, Reply } from "../../mixins/actor-service.ts";
import { backoffMs } from "../../mixins/clock.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { beat, listOnMachine, markGone } from "../../mixins/postgres/runtime.ts";
import { wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import type { ActorKind, Ring } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { identify, isAlive } from "./identity.ts";
import { Reporter } from "./reporter.ts";
import { runCommand, type Ran } from "./run.ts";
import { Slots } from "./slots.ts";

export interface WorkerOptions {
  /** Items running at once; the setting when absent. */
  slots?: number;
}

/** A claim that cannot be made is given up after this long: the command is rung again. */
const CLAIM_MS = 20_000;

/** The service `worker` over a process's runtime. */
export default function workerService(runtime: Runtime, options: WorkerOptions = {}): ServiceSchema {
  const { settings, clock, database, doorbell, nodeId } = runtime;
  const me = identify(nodeId);
  const slots = new Slots(options.slots ?? settings.worker.maxInflight);
  const stopping = new AbortController();
  const aborting = new AbortController();
  const work = new Set<Promise<void>>();
  /** Commands this worker runs or has still to report. */
  const held = new Set<string>();
  let reporter: Reporter;
  let cancelBeat = () => {};
  let fetching: Promise<void> = Promise.resolve();
  let draining: Promise<void> | undefined;

  async function fetchLoop(service: Service): Promise<void> {
    while (!stopping.signal.aborted) {
      const free = await slots.free(stopping.signal);
      if (free === 0) break;
      const rings = await doorbell.fetch(free, stopping.signal).catch(async (error: unknown) => {
        service.logger.warn({ err: error }, "worker.fetch_failed");
        await clock.sleep(1_000);
        return [];
      });
      for (const [actor, group] of Map.groupBy(rings, ring => ring.actor)) {
        slots.take(group.length);
        track(claim(service, actor, group));
      }
    }
  }

  function track(promise: Promise<void>): void {
    work.add(promise);
    void promise.finally(() => work.delete(promise));
  }

  /** Claims a batch; grants start at once, and the slots of the refused are free again. */
  async function claim(service: Service, actor: ActorKind, rings: Ring[]): Promise<void> {
    const batch: ClaimBatch = {
      worker_id: me.worker_id,
      incarnation: me.incarnation,
      claim_id: randomUUID(),
      claims: rings.map(({ execution_id, stream_id, command_id }) => {
        return { execution_id, stream_id, command_id };
      }),
    };
    for (const { command_id } of rings) held.add(command_id);
    const grants = await claimed(service, actor, batch);
    const granted = new Set(grants.map(grant => grant.command_id));
    for (const { command_id } of rings) if (!granted.has(command_id)) held.delete(command_id);
    slots.give(rings.length - grants.length);
    for (const grant of grants) {
      if (stopping.signal.aborted) {
        slots.give(1);
        track(giveBack(service, actor, grant));
      } else track(run(service, actor, grant));
    }
  }

  /** A lost answer costs nothing: the same claim_id is answered again (design §5 rule 4). */
  async function claimed(service: Service, actor: ActorKind, batch: ClaimBatch): Promise<Grant[]> {
    const started = clock.now();
    const grants: Grant[] = [];
    let claims = batch.claims;
    for (let tries = 0; claims.length > 0; tries += 1) {
      if (tries > 0) {
        if (clock.now() - started > CLAIM_MS) break;
        await clock.sleep(backoffMs(tries, 50, 2_000));
      }
      try {
        const sent: ClaimBatch = { ...batch, claims };
        const replies = await service.broker.call<Reply<{ grant?: Grant }>[], ClaimBatch>(
          `${actor}.claim`,
          sent,
          { timeout: CLAIM_MS },
        );
        for (const reply of replies) if (reply.status === "ok" && reply.grant) grants.push(reply.grant);
        const failed = new Set(replies.filter(one => one.status === "failed").map(one => one.command_id));
        claims = claims.filter(one => failed.has(one.command_id));
      } catch (error) {
        if (tries % 10 === 0) service.logger.warn({ err: error, actor }, "worker.claim_later");
      }
    }
    return grants;
  }

  /** Runs a command, and then each one that the owner hands over with the answer to its outcome. */
  async function run(service: Service, actor: ActorKind, first: Grant): Promise<void> {
    let grant: Grant | undefined = first;
    try {
      while (grant) grant = await runOne(service, actor, grant);
    } finally {
      slots.give(1);
    }
  }

  async function runOne(
    service: Service,
    actor: ActorKind,
    grant: Grant,
  ): Promise<Grant | undefined> {
    const { execution_id, stream_id, command_id, delivery, step } = grant;
    const { worker_id, incarnation } = me;
    let ran: Ran;
    held.add(command_id);
    try {
      ran = await runCommand(runtime, service.broker, grant, {
        signal: aborting.signal,
        suspended: wait => slots.suspended(wait),
      });
    } catch (error) {
      if (!aborting.signal.aborted) {
        // Neither an outcome nor an abort: the world is away. The command is offered again, uncharged.
        service.logger.warn({ err: error, execution_id, command_id, step }, "worker.run_released");
        await clock.sleep(1_000);
      }
      await giveBack(service, actor, grant);
      held.delete(command_id);
      return undefined;
    }
    // Whoever waits for a slot goes first: a long loop must not keep a short run waiting.
    const takesNext = !stopping.signal.aborted && doorbell.waiting() === 0;
    const next = takesNext ? { worker_id, incarnation, claim_id: randomUUID() } : undefined;
    const outcome = { execution_id, stream_id, command_id, delivery, worker_id, ...ran };
    const handed = await reporter.report({ actor, ...outcome, ...(next && { next }) });
    held.delete(command_id);
    return handed;
  }

  async function giveBack(service: Service, actor: ActorKind, grant: Grant): Promise<void> {
    const { execution_id, stream_id, command_id, delivery } = grant;
    const release = { execution_id, stream_id, command_id, delivery, worker_id: me.worker_id };
    await service.broker
      .call(`${actor}.release`, { releases: [release] }, { timeout: 5_000 })
      // A release that is lost costs its lease: the command expires when this worker is gone.
      .catch((error: unknown) => service.logger.warn({ err: error, command_id }, "worker.release_lost"));
  }

  async function sayAlive(service: Service): Promise<void> {
    try {
      const capacity = { slots: slots.size, free: slots.now };
      await beat(database, { ...me, capacity }, stopping.signal.aborted ? "draining" : "ready");
    } catch (error) {
      service.logger.warn({ err: error }, "worker.beat_failed");
    }
    cancelBeat = clock.after(settings.worker.beatMs, () => void sayAlive(service));
  }

  /** Workers of this machine whose process is gone will not report: their commands need not wait. */
  async function buryDead(): Promise<void> {
    const others = await listOnMachine(database, me.machine);
    const dead = others.filter(one => one.incarnation !== me.incarnation && !isAlive(one.pid));
    if (dead.length === 0) return;
    await markGone(database, dead.map(one => one.incarnation));
    await wakeStreamsOf(database, dead.map(one => one.worker_id));
  }

  /** No new claims; running work ends or, after the limit, is given back uncharged. */
  async function drain(service: Service): Promise<void> {
    stopping.abort();
    await fetching;
    const cancel = clock.after(settings.node.drainMs, () => aborting.abort(new Error("worker stops")));
    while (work.size > 0) await Promise.allSettled([...work]);
    cancel();
    cancelBeat();
    await markGone(database, [me.incarnation]).catch((error: unknown) => {
      service.logger.warn({ err: error }, "worker.farewell_lost");
    });
  }

  return {
    name: "worker",
    actions: {
      /** Stops taking work and resolves when none is left. Repeatable. */
      drain: {
        visibility: "protected",
        async handler() {
          await (draining ??= drain(this as unknown as Service));
        },
      },
      /** Of these commands, those this incarnation holds: an owner asks when a lease has passed. */
      holds: {
        visibility: "public",
        handler: (ctx: Context<{ incarnation: string; command_ids: string[] }>) =>
          ctx.params.incarnation === me.incarnation
            ? ctx.params.command_ids.filter(id => held.has(id))
            : [],
      },
      /** This worker's slots and counters. */
      info: {
        visibility: "public",
        handler: (_ctx: Context) => ({ ...me, slots: slots.size, free: slots.now, ...reporter.counters }),
      },
    },
    async started(this: Service) {
      reporter = new Reporter(this.broker, clock);
      await sayAlive(this);
      await buryDead();
      this.logger.info({ ...me, slots: slots.size }, "worker.started");
      fetching = fetchLoop(this);
    },
    /** Workers drain first, while the owners of their commands are still here. */
    async stopped(this: Service) {
      await (draining ??= drain(this));
    },
  };
}
