// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what
// comes next.
import { randomUUID } from "node:crypto";
import type { Service } from "moleculer";
import type { Rung } from "../../mixins/notifications.ts";
import { callOwner } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { releaseShardsOf } from "../../mixins/postgres/execution.ts";
import { beat, listOnMachine, markGone } from "../../mixins/postgres/runtime.ts";
import { wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { claimAll } from "./claims.ts";
import { identify, isAlive, type WorkerIdentity } from "./identity.ts";
import { Reporter, type Outcome } from "./reporter.ts";
import { runCommand } from "./run.ts";
import { Slots } from "./slots.ts";

/** Pause after a fetch that failed, or a run that found the world away. */
const PAUSE_MS = 1_000;
const RELEASE_MS = 5_000;
/** Commands one slot takes from hand to hand before it looks what else waits. */
const HANDED_MAX = 32;
/** How often a worker looks whether its neighbours on the machine still live. */
const WATCH_MS = 1_000;

class CommandCancelled extends Error {}

/** One worker of a process: from `start` to `drain`. */
export class Worker {
  readonly me: WorkerIdentity;
  readonly slots: Slots;
  readonly #runtime: Runtime;
  readonly #service: Service;
  readonly #reporter: Reporter;
  readonly #stopping = new AbortController();
  readonly #work = new Set<Promise<void>>();
  /** Commands this worker claims, runs, or has still to report, each with what ends it. */
  readonly #held = new Map<string, AbortController>();
  #cancelBeat = () => {};
  #cancelWatch = () => {};
  #unsubscribe = () => {};
  #fetching: Promise<void> = Promise.resolve();
  #draining: Promise<void> | undefined;

  constructor(runtime: Runtime, service: Service, slots: number) {
    this.#runtime = runtime;
    this.#service = service;
    this.me = identify(runtime.nodeId);
    this.slots = new Slots(slots);
    this.#reporter = new Reporter(service.broker, runtime.clock);
  }

  async start(): Promise<void> {
    await this.#beat();
    await this.#watchMachine();
    this.#service.logger.info({ ...this.me, slots: this.slots.size }, "worker.started");
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#abortCancelled(events));
    this.#fetching = this.#fetch();
  }

  /** No new claims; running work ends or, after the limit, is given back uncharged. Repeatable. */
  drain(): Promise<void> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  /** Of these commands, those that this incarnation holds. */
  holds(incarnation: string, commandIds: string[]): string[] {
    if (incarnation !== this.me.incarnation) return [];
    return commandIds.filter(id => this.#held.has(id));
  }

  info() {
    return { ...this.me, slots: this.slots.size, free: this.slots.now, ...this.#reporter.counters };
  }

  async #drain(): Promise<void> {
    const { clock, database, settings } = this.#runtime;
    this.#stopping.abort();
    await this.#fetching;
    const cancel = clock.after(settings.node.drainMs, () => {
      for (const controller of this.#held.values()) controller.abort(new Error("worker stops"));
    });
    while (this.#work.size > 0) await Promise.allSettled([...this.#work]);
    cancel();
    this.#cancelBeat();
    this.#cancelWatch();
    this.#unsubscribe();
    await markGone(database, [this.me.incarnation]).catch((error: unknown) => {
      this.#service.logger.warn({ err: error }, "worker.farewell_lost");
    });
  }

  async #fetch(): Promise<void> {
    const { doorbell, clock } = this.#runtime;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const free = await this.slots.free(signal);
      if (free === 0) break;
      const rings = await doorbell.fetch(free, signal).catch(async (error: unknown) => {
        this.#service.logger.warn({ err: error }, "worker.fetch_failed");
        await clock.sleep(PAUSE_MS);
        return [];
      });
      for (const [actor, group] of Map.groupBy(rings, ring => ring.actor)) {
        this.slots.take(group.length);
        this.#track(this.#claim(actor, group));
      }
    }
  }

  #track(promise: Promise<void>): void {
    this.#work.add(promise);
    void promise.finally(() => this.#work.delete(promise));
  }

  /** Claims a batch; grants start at once, and the slots of the refused are free again. */
  async #claim(actor: ActorKind, rings: Rung[]): Promise<void> {
    const { broker } = this.#service;
    for (const { command_id } of rings) this.#held.set(command_id, new AbortController());
    const grants = await claimAll(broker, this.#runtime.clock, this.me, { actor, rings });
    for (const ring of rings) ring.ack();
    const granted = new Set(grants.map(grant => grant.command_id));
    for (const { command_id } of rings) if (!granted.has(command_id)) this.#held.delete(command_id);
    this.slots.give(rings.length - grants.length);
    for (const grant of grants) this.#track(this.#run(actor, grant));
  }

  /** Runs a command, and then each one that the owner hands over with the answer to its outcome. */
  async #run(actor: ActorKind, first: Grant): Promise<void> {
    let grant: Grant | undefined = first;
    try {
      for (let handed = 0; grant; handed += 1) {
        const controller: AbortController =
          this.#held.get(grant.command_id) ?? new AbortController();
        this.#held.set(grant.command_id, controller);
        const takesNext = handed < HANDED_MAX;
        const work = { actor, grant, takesNext };
        const next: Grant | undefined = await this.#runOne(work, controller.signal);
        this.#held.delete(grant.command_id);
        grant = next;
      }
    } finally {
      this.slots.give(1);
    }
  }

  async #runOne(
    { actor, grant, takesNext }: { actor: ActorKind; grant: Grant; takesNext: boolean },
    signal: AbortSignal,
  ): Promise<Grant | undefined> {
    if (this.#stopping.signal.aborted) return this.#giveBack(actor, grant);
    const { execution_id, stream_id, command_id, delivery, step } = grant;
    const { worker_id } = this.me;
    try {
      const ran = await runCommand(this.#runtime, this.#service.broker, grant, {
        signal,
        suspended: wait => this.slots.suspended(wait),
      });
      const ids = { actor, execution_id, stream_id, command_id, delivery, worker_id };
      return await this.#reporter.report({ ...ids, ...ran, ...(takesNext && this.#wantsNext()) });
    } catch (error) {
      if (signal.reason instanceof CommandCancelled) return undefined;
      if (!signal.aborted) {
        // Neither an outcome nor an abort: the world is away. The command is offered again,
        // uncharged.
        this.#service.logger.warn(
          { err: error, execution_id, command_id, step },
          "worker.run_released",
        );
        await this.#runtime.clock.sleep(PAUSE_MS);
      }
      return this.#giveBack(actor, grant);
    }
  }

  /** Work whose command is cancelled in this process ends at once: nobody wants its outcome. */
  #abortCancelled(events: StoredEvent[]): void {
    for (const event of events) {
      if (event.event_type !== "command.cancelled") continue;
      this.#held.get(event.meta.command_id)?.abort(new CommandCancelled());
    }
  }

  /** Whoever waits for a slot goes first: a long loop must not keep a short run waiting. */
  #wantsNext(): Pick<Outcome, "next"> {
    if (this.#stopping.signal.aborted || this.#runtime.doorbell.waiting() > 0) return {};
    const { worker_id, incarnation } = this.me;
    return { next: { worker_id, incarnation, claim_id: randomUUID() } };
  }

  async #giveBack(actor: ActorKind, grant: Grant): Promise<undefined> {
    const { execution_id, stream_id, command_id, delivery } = grant;
    const { worker_id } = this.me;
    const release = { execution_id, stream_id, command_id, delivery, worker_id };
    const params = { releases: [release] };
    const call = { service: actor, action: "release", params, timeoutMs: RELEASE_MS };
    await callOwner(this.#service.broker, stream_id, call)
      // A release that is lost costs its lease: this worker is gone, or says that it does not hold
      // it.
      .catch((error: unknown) => {
        this.#service.logger.warn({ err: error, command_id }, "worker.release_lost");
      });
    return undefined;
  }

  /** Liveness is this row: owners read it when a lease has passed. */
  async #beat(): Promise<void> {
    const { clock, database, settings } = this.#runtime;
    const status = this.#stopping.signal.aborted ? "draining" : "ready";
    const capacity = { slots: this.slots.size, free: this.slots.now };
    try {
      await beat(database, { ...this.me, capacity }, status);
    } catch (error) {
      this.#service.logger.warn({ err: error }, "worker.beat_failed");
    }
    this.#cancelBeat = clock.after(settings.worker.beatMs, () => void this.#beat());
  }

  async #watchMachine(): Promise<void> {
    const { clock } = this.#runtime;
    try {
      await this.#buryDead();
    } catch (error) {
      this.#service.logger.warn({ err: error }, "worker.watch_failed");
    }
    if (this.#stopping.signal.aborted) return;
    this.#cancelWatch = clock.after(WATCH_MS, () => void this.#watchMachine());
  }

  /**
   * Workers of this machine whose process is gone will not report: their commands need not wait for
   * a lease, nor the projection for theirs.
   */
  async #buryDead(): Promise<void> {
    const { database } = this.#runtime;
    const others = await listOnMachine(database, this.me.machine);
    const dead = others.filter(one => one.incarnation !== this.me.incarnation && !isAlive(one.pid));
    if (dead.length === 0) return;
    const names = dead.map(one => one.worker_id);
    const incarnations = dead.map(one => one.incarnation);
    this.#service.logger.info({ workers: names }, "worker.buried");
    await database.transaction(async query => {
      await markGone(query, incarnations);
      await wakeStreamsOf(query, names);
      await releaseShardsOf(query, names);
    });
  }
}
