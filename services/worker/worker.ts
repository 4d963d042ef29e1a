// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what
// comes next.
import type { Service } from "moleculer";
import type { Rung } from "../../mixins/notifications.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { offersOf } from "../../mixins/capacity.ts";
import { abandoned } from "../../schemas/command-failures.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { WorkerCapacity } from "../../schemas/worker-capacity.ts";
import { serves } from "../../schemas/needs.ts";
import { WORK_CLASSES, type WorkClass } from "../../schemas/work-class.ts";
import { announceCapacity, behindGates, capacityOf, type Announcer } from "./announce.ts";
import { claimAll } from "./claims.ts";
import { identify, type WorkerIdentity } from "./identity.ts";
import { openGates, type Gates } from "./gate/open.ts";
import { Ledger, reclass, type Slot } from "./ledger.ts";
import { LongWaits } from "./long-waits.ts";
import { watchNeighbours } from "./neighbours.ts";
import { pullClass } from "./puller.ts";
import { runCursorFrame } from "./cursor-frame.ts";
import { runFrame } from "./frame.ts";
import { HANDED_MAX, nextClaim } from "./next-claim.ts";
import { findOffers, type WorkerOffers } from "./offers.ts";
import { startRecord } from "./start-record.ts";
import { Reporter, type Outcome, type Settled } from "./reporter.ts";
import { openCommand, runCommand } from "./run.ts";

/** Pause after a run that found the world away. */
const PAUSE_MS = 1_000;

class CommandAbandoned extends Error {}

/** A command in a slot of its class. */
interface Work {
  actor: ActorKind;
  grant: Grant;
  takesNext: boolean;
  slot: Slot;
}

/** One worker of a process: from `start` to `drain`. */
export class Worker {
  readonly me: WorkerIdentity;
  readonly slots: Ledger;
  readonly gates: Gates;
  readonly #runtime: Runtime;
  readonly #service: Service;
  readonly #link: ServerLink;
  readonly #reporter: Reporter;
  readonly #longWaits: LongWaits;
  readonly #stopping = new AbortController();
  readonly #work = new Set<Promise<void>>();
  /** Commands this worker claims, runs, or has still to report, each with what ends it. */
  readonly #held = new Map<string, AbortController>();
  #offers: WorkerOffers = { capabilities: [], labels: [] };
  #announcer: Announcer | undefined;
  #cancelBeat = () => {};
  #unwatch = () => {};
  #unsubscribe = () => {};
  #fetching: Promise<void> = Promise.resolve();
  #draining: Promise<void> | undefined;

  constructor(runtime: Runtime, service: Service, link: ServerLink) {
    this.#runtime = runtime;
    this.#service = service;
    this.#link = link;
    this.me = identify(runtime.nodeId);
    const { maxInflight: all, maxInflightDb: database } = runtime.settings.worker;
    this.slots = new Ledger({ all, database });
    this.#longWaits = new LongWaits(all);
    const { incarnation } = this.me;
    this.gates = openGates({ runtime, service, ledger: this.slots, incarnation });
    this.#reporter = new Reporter(service.broker, runtime.clock, link);
  }

  async start(): Promise<void> {
    const { clock, doorbell, settings, workers } = this.#runtime;
    this.#offers = await findOffers(this.#runtime);
    await doorbell.attend(this.me.worker_id);
    await this.#beat();
    const { logger } = this.#service;
    this.#unwatch = await watchNeighbours({ clock, workers, logger }, this.me);
    const { limits, gate } = startRecord(this.#runtime.settings, this.gates);
    // One field a limit: a log cuts objects that are long.
    logger.info({ ...this.me, gate, ...limits }, "worker.started");
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#abortAbandoned(events));
    this.#fetching = this.#pull();
    const { broker } = this.#service;
    const { capacityMs: everyMs } = settings.dispatch;
    const room = () => behindGates(this.#capacity(), this.gates.of);
    this.#announcer = announceCapacity({ broker, clock, everyMs }, room);
  }

  /** What it offers, as one list of words. */
  get offers(): string[] {
    return offersOf(this.#offers);
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
    const { slots, available_slots: free } = this.#capacity();
    return { ...this.me, slots, free, ...this.#reporter.counters };
  }

  async #drain(): Promise<void> {
    const { clock, workers, settings } = this.#runtime;
    this.#stopping.abort();
    this.#announcer?.stop();
    await this.#fetching;
    const cancel = clock.after(settings.node.drainMs, () => {
      for (const controller of this.#held.values()) controller.abort(new Error("worker stops"));
    });
    while (this.#work.size > 0) await Promise.allSettled([...this.#work]);
    cancel();
    this.#cancelBeat();
    this.#unwatch();
    await this.gates.close();
    this.#unsubscribe();
    await workers.leave(this.me.incarnation).catch((error: unknown) => {
      this.#service.logger.warn({ err: error }, "worker.farewell_lost");
    });
  }

  /** Each class by itself, until the worker stops. */
  async #pull(): Promise<void> {
    const { clock, doorbell } = this.#runtime;
    const { isAskingOthers: isGated } = this.gates;
    const ports = {
      ...{ clock, doorbell, link: this.#link, ledger: this.slots, isGated },
      take: (rings: Rung[], workClass: WorkClass) => {
        for (const [actor, group] of Map.groupBy(rings, ring => ring.actor)) {
          this.#track(this.#claim(actor, group, workClass));
        }
      },
      failed: (err: unknown) => this.#service.logger.warn({ err }, "worker.fetch_failed"),
    };
    const { signal } = this.#stopping;
    await Promise.all(
      WORK_CLASSES.map(workClass => {
        const { gate } = this.gates.of[workClass];
        return pullClass(workClass, { ...ports, gate }, signal);
      }),
    );
  }

  #track(promise: Promise<void>): void {
    this.#work.add(promise);
    void promise.finally(() => this.#work.delete(promise));
  }

  /** Claims a batch; grants start at once, and the slots of the refused are free again. */
  async #claim(actor: ActorKind, rung: Rung[], workClass: WorkClass): Promise<void> {
    const { broker } = this.#service;
    const claimer = { broker, clock: this.#runtime.clock, link: this.#link, me: this.me };
    const rings = rung.filter(ring => this.#hold(ring));
    this.#ended(workClass, rung.length - rings.length);
    const grants = await claimAll(claimer, { actor, rings });
    for (const ring of rings) ring.ack();
    const granted = new Set(grants.map(grant => grant.command_id));
    for (const { command_id } of rings) if (!granted.has(command_id)) this.#held.delete(command_id);
    this.#ended(workClass, rings.length - grants.length);
    for (const grant of grants) this.#track(this.#run(actor, grant, workClass));
  }

  /**
   * False for a command that is held already: rung twice, a second claim would only be refused; and
   * for one that needs what is not here: it is rung again for others.
   */
  #hold(ring: Rung): boolean {
    if (this.#held.has(ring.command_id) || !serves(this.offers, ring.requires)) {
      ring.ack();
      return false;
    }
    this.#held.set(ring.command_id, new AbortController());
    return true;
  }

  /** Runs a command, and then each one that the owner hands over with the answer to its outcome. */
  async #run(actor: ActorKind, first: Grant, workClass: WorkClass): Promise<void> {
    let grant: Grant | undefined = first;
    const slot = { workClass };
    try {
      for (let handed = 0; grant; handed += 1) {
        const controller: AbortController =
          this.#held.get(grant.command_id) ?? new AbortController();
        this.#held.set(grant.command_id, controller);
        reclass(this.slots, slot, grant.kind);
        const takesNext = handed < HANDED_MAX;
        const work = { actor, grant, takesNext, slot };
        const next: Grant | undefined = await this.#runOne(work, controller.signal);
        this.#held.delete(grant.command_id);
        grant = next;
      }
    } finally {
      this.#ended(slot.workClass, 1);
    }
  }

  #ended(workClass: WorkClass, count: number): void {
    if (count === 0) return;
    this.slots.give(workClass, count);
    this.gates.ended(count);
  }

  async #runOne(
    { actor, grant, takesNext, slot }: Work,
    signal: AbortSignal,
  ): Promise<Grant | undefined> {
    if (this.#stopping.signal.aborted) return this.#giveBack(actor, grant);
    const { execution_id, stream_id, command_id, delivery, step } = grant;
    const { worker_id } = this.me;
    const ids = { actor, execution_id, stream_id, command_id, delivery, worker_id };
    const next = () => (takesNext ? this.#wantsNext(slot, actor) : {});
    try {
      const command = await openCommand(this.#runtime, this.#service.broker, grant, {
        signal,
        suspended: wait => this.slots.suspended(slot.workClass, wait),
        waiting: wait =>
          this.#longWaits.around(wait, waits => this.slots.suspended(slot.workClass, waits)),
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

  #wantsNext(slot: Slot, actor: ActorKind): Pick<Outcome, "next"> {
    if (this.#stopping.signal.aborted) return {};
    const { me, offers, slots } = this;
    const next = nextClaim(slot, actor, { doorbell: this.#runtime.doorbell, slots, me, offers });
    return next ? { next } : {};
  }

  #capacity(): WorkerCapacity {
    const status = this.#stopping.signal.aborted ? "draining" : "ready";
    return capacityOf(this.me, this.slots, { status, ...this.#offers });
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
    const { clock, store, workers, settings } = this.#runtime;
    const { status, ...told } = this.#capacity();
    const capacity = { ...told, free: told.available_slots };
    try {
      await workers.beat({ ...this.me, capacity }, status);
      if (this.gates.isAskingOthers) {
        this.gates.setWorkers(await workers.countReady(settings.command.leaseMs));
      }
      // Whoever ended them has said so, once; without NATS, or by bad luck, nobody has heard it.
      if (this.#held.size > 0) this.abort(await store.findOver([...this.#held.keys()]));
    } catch (error) {
      this.#service.logger.warn({ err: error }, "worker.beat_failed");
    }
    this.#cancelBeat = clock.after(settings.worker.beatMs, () => void this.#beat());
  }
}
