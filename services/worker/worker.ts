// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what
// comes next.
import { randomUUID } from "node:crypto";
import type { Service } from "moleculer";
import type { Rung } from "../../mixins/notifications.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { findOver } from "../../mixins/postgres/command.ts";
import { releaseShardsOf } from "../../mixins/postgres/execution.ts";
import { beat, listOnMachine, markGone } from "../../mixins/postgres/runtime.ts";
import { wakeStreamsOf } from "../../mixins/postgres/stream.ts";
import { abandoned } from "../../schemas/command.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { claimAll } from "./claims.ts";
import { identify, isAlive, type WorkerIdentity } from "./identity.ts";
import { runCursorFrame } from "./cursor-frame.ts";
import { runFrame } from "./frame.ts";
import { LongWaits } from "./long-waits.ts";
import { Reporter, type Outcome, type Settled } from "./reporter.ts";
import { openCommand, runCommand } from "./run.ts";
import { Slots } from "./slots.ts";

/** Pause after a fetch that failed, or a run that found the world away. */
const PAUSE_MS = 1_000;
/** Between two looks while neither the doorbell nor a server can be reached. */
const QUIET_MS = 500;
/** Commands one slot takes from hand to hand before it looks what else waits. */
const HANDED_MAX = 32;
/** How often a worker looks whether its neighbours on the machine still live. */
const WATCH_MS = 1_000;

class CommandAbandoned extends Error {}

/** One worker of a process: from `start` to `drain`. */
export class Worker {
  readonly me: WorkerIdentity;
  readonly slots: Slots;
  readonly #runtime: Runtime;
  readonly #service: Service;
  readonly #link: ServerLink;
  readonly #reporter: Reporter;
  readonly #longWaits: LongWaits;
  readonly #stopping = new AbortController();
  readonly #work = new Set<Promise<void>>();
  /** Commands this worker claims, runs, or has still to report, each with what ends it. */
  readonly #held = new Map<string, AbortController>();
  #cancelBeat = () => {};
  #cancelWatch = () => {};
  #unsubscribe = () => {};
  #fetching: Promise<void> = Promise.resolve();
  #draining: Promise<void> | undefined;

  constructor(runtime: Runtime, service: Service, link: ServerLink) {
    this.#runtime = runtime;
    this.#service = service;
    this.#link = link;
    this.me = identify(runtime.nodeId);
    this.slots = new Slots(runtime.settings.worker.maxInflight);
    this.#longWaits = new LongWaits(this.slots.size, wait => this.slots.suspended(wait));
    this.#reporter = new Reporter(service.broker, runtime.clock, link);
  }

  async start(): Promise<void> {
    await this.#beat();
    await this.#watchMachine();
    this.#service.logger.info({ ...this.me, slots: this.slots.size }, "worker.started");
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#abortAbandoned(events));
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
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const free = await this.slots.free(signal);
      if (free === 0) break;
      const rings = await this.#rings(free, signal);
      for (const [actor, group] of Map.groupBy(rings, ring => ring.actor)) {
        this.slots.take(group.length);
        this.#track(this.#claim(actor, group));
      }
    }
  }

  /** What the doorbell brings; when it is silent, what the servers know to wait. */
  async #rings(free: number, signal: AbortSignal): Promise<Rung[]> {
    const { doorbell, clock } = this.#runtime;
    try {
      const rung = await doorbell.fetch(free, signal);
      if (rung.length > 0 || signal.aborted) return rung;
    } catch (error) {
      this.#service.logger.warn({ err: error }, "worker.fetch_failed");
      await clock.sleep(PAUSE_MS);
    }
    const asked = await this.#link.waiting(free, signal);
    if (asked.length === 0 && !signal.aborted && !doorbell.connected()) await clock.sleep(QUIET_MS);
    return asked.map(ring => ({ ...ring, ack: () => undefined }));
  }

  #track(promise: Promise<void>): void {
    this.#work.add(promise);
    void promise.finally(() => this.#work.delete(promise));
  }

  /** Claims a batch; grants start at once, and the slots of the refused are free again. */
  async #claim(actor: ActorKind, rung: Rung[]): Promise<void> {
    const { broker } = this.#service;
    const claimer = { broker, clock: this.#runtime.clock, link: this.#link, me: this.me };
    const rings = rung.filter(ring => this.#hold(ring));
    this.slots.give(rung.length - rings.length);
    const grants = await claimAll(claimer, { actor, rings });
    for (const ring of rings) ring.ack();
    const granted = new Set(grants.map(grant => grant.command_id));
    for (const { command_id } of rings) if (!granted.has(command_id)) this.#held.delete(command_id);
    this.slots.give(rings.length - grants.length);
    for (const grant of grants) this.#track(this.#run(actor, grant));
  }

  /** False for a command that is held already: rung twice, a second claim would only be refused. */
  #hold(ring: Rung): boolean {
    if (this.#held.has(ring.command_id)) {
      ring.ack();
      return false;
    }
    this.#held.set(ring.command_id, new AbortController());
    return true;
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
    const ids = { actor, execution_id, stream_id, command_id, delivery, worker_id };
    const next = () => (takesNext ? this.#wantsNext() : {});
    try {
      const command = await openCommand(this.#runtime, this.#service.broker, grant, {
        signal,
        suspended: wait => this.slots.suspended(wait),
        waiting: wait => this.#longWaits.around(wait),
      });
      if (!grant.frame && !grant.cursor) {
        const ran = await runCommand(command);
        return (await this.#reporter.report({ ...ids, ...ran, ...next() })).next;
      }
      let settled: Settled = { accepted: true };
      await (grant.cursor ? runCursorFrame : runFrame)(command, async report => {
        const more = report.frame?.final === false ? {} : next();
        settled = await this.#reporter.report({ ...ids, ...report, ...more });
        return settled.accepted;
      });
      return settled.next;
    } catch (error) {
      if (signal.reason instanceof CommandAbandoned) return undefined;
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

  /** Ends work that is of no use to anybody: its command is over. How many ran here. */
  abort(commandIds: string[]): number {
    const running = commandIds.flatMap(id => this.#held.get(id) ?? []);
    for (const controller of running) controller.abort(new CommandAbandoned());
    return running.length;
  }

  #abortAbandoned(events: StoredEvent[]): void {
    for (const event of events) {
      const command = abandoned(event);
      if (command) this.abort([command.command_id]);
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
    await this.#link
      .release(actor, release)
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
      // Whoever ended them has said so, once; without NATS, or by bad luck, nobody has heard it.
      if (this.#held.size > 0) this.abort(await findOver(database, [...this.#held.keys()]));
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
