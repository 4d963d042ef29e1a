// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what
// comes next.
import type { Service } from "moleculer";
import type { Rung } from "../../mixins/notifications.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { offersOf } from "../../mixins/capacity.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { WorkerCapacity } from "../../schemas/worker-capacity.ts";
import { serves } from "../../schemas/needs.ts";
import { WORK_CLASSES, type WorkClass } from "../../schemas/work-class.ts";
import { announceCapacity, behindGates, capacityOf, type Announcer } from "./announce.ts";
import { Beats } from "./beats.ts";
import { Claims } from "./claims.ts";
import { CommandAbandoned, Held } from "./held.ts";
import { identify, type WorkerIdentity } from "./identity.ts";
import { giveBack } from "./give-back.ts";
import { openGates, type Gates } from "./gate/open.ts";
import { Ledger, reclass, type Slot } from "./ledger.ts";
import { watchNeighbours } from "./neighbours.ts";
import { pullClass } from "./puller.ts";
import { runCursorFrame } from "./cursor-frame.ts";
import { runFrame } from "./frame.ts";
import { Hands, nextClaim } from "./next-claim.ts";
import { LongWaits } from "./long-waits.ts";
import { findOffers, type WorkerOffers } from "./offers.ts";
import { Readiness } from "./readiness.ts";
import { startRecord } from "./start-record.ts";
import { Reporter, type Outcome, type Settled } from "./reporter.ts";
import { openCommand, runCommand } from "./run.ts";
import { Seclusion } from "./seclusion.ts";
import { Taker } from "./taker.ts";
import { Turns } from "./turns.ts";

/** Pause after a run that found the world away. */
const PAUSE_MS = 1_000;

/** A command in a slot of its class. */
interface Work {
  actor: ActorKind;
  grant: Grant;
  hands: Hands;
  slot: Slot;
}

/** One worker of a process: from `start` to `drain`. */
export class Worker {
  readonly me: WorkerIdentity;
  readonly slots: Ledger;
  readonly gates: Gates;
  readonly taker: Taker;
  readonly #runtime: Runtime;
  readonly #service: Service;
  readonly #link: ServerLink;
  readonly #claims: Claims;
  readonly #reporter: Reporter;
  readonly #longWaits: LongWaits;
  readonly #turns = new Turns();
  readonly #seclusion: Seclusion;
  readonly #stopping = new AbortController();
  readonly #work = new Set<Promise<void>>();
  readonly #held = new Held();
  readonly #beats: Beats;
  readonly #readiness: Readiness;
  #offers: WorkerOffers = { capabilities: [], labels: [] };
  #announcer: Announcer | undefined;
  #unwatch = () => {};
  #unsubscribe = () => {};
  #fetching: Promise<void> = Promise.resolve();
  #draining: Promise<void> | undefined;

  constructor(runtime: Runtime, service: Service, link: ServerLink) {
    this.#runtime = runtime;
    this.#service = service;
    this.#link = link;
    const me = (this.me = identify(runtime.nodeId));
    const { clock, settings } = runtime;
    const { broker } = service;
    const { maxInflight: all, maxInflightDb: database } = settings.worker;
    const ledger = (this.slots = new Ledger({ all, database }));
    this.#longWaits = new LongWaits(all);
    this.#seclusion = new Seclusion({ ledger, clock, ...settings.command });
    this.gates = openGates({ runtime, service, ledger, incarnation: me.incarnation });
    this.#claims = new Claims({ broker, clock, link, me });
    this.#reporter = new Reporter(broker, clock, link);
    this.taker = new Taker({
      ...{ clock, link, me, gates: this.gates, held: this.#held, signal: this.#stopping.signal },
      run: (actor, grant, workClass) => this.#track(this.#run(actor, grant, workClass)),
    });
    this.#readiness = new Readiness(reason => this.#readyOrNot(reason));
    this.#beats = new Beats({
      ...{ runtime, me, gates: this.gates },
      told: () => this.#told(),
      held: () => this.#held.ids,
      abort: ids => void this.abort(ids),
      failed: err => service.logger.warn({ err }, "worker.beat_failed"),
    });
  }

  async start(): Promise<void> {
    const { clock, doorbell, settings, workers } = this.#runtime;
    this.#offers = await findOffers(this.#runtime);
    await doorbell.attend(this.me.worker_id);
    await this.#beats.begin();
    const { logger } = this.#service;
    this.#unwatch = await watchNeighbours({ clock, workers, logger }, this.me);
    const { limits, gate } = startRecord(settings, this.gates);
    // One field a limit: a log cuts objects that are long.
    logger.info({ ...this.me, gate, ...limits }, "worker.started");
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#held.heed(events));
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

  /** `reason`: why its pulls bring nothing; undefined while it is ready for work. */
  info() {
    const { slots, available_slots: free } = this.#capacity();
    const { reason } = this.#readiness;
    return { ...this.me, slots, free, ...this.#reporter.counters, reason };
  }

  async #drain(): Promise<void> {
    const { clock, workers, settings } = this.#runtime;
    this.#stopping.abort();
    this.#announcer?.stop();
    await this.#fetching;
    const cancel = clock.after(settings.node.drainMs, () => this.#held.endAll());
    while (this.#work.size > 0) await Promise.allSettled([...this.#work]);
    cancel();
    await this.#beats.end();
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
    const { signal } = this.#stopping;
    const ports = {
      ...{ clock, doorbell, link: this.#link, ledger: this.slots, isGated },
      take: (rings: Rung[], workClass: WorkClass) => {
        const claim = (actor: ActorKind, some: Rung[]) => this.#claim(actor, some, workClass);
        const ended = (count: number) => this.#ended(workClass, count);
        this.#track(this.#seclusion.admit(rings, { claim, ended, signal }));
      },
      pulled: (workClass: WorkClass, why?: string) => this.#readiness.pulled(workClass, why),
      failed: (err: unknown) => this.#service.logger.warn({ err }, "worker.fetch_failed"),
    };
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

  /** Claims a batch and runs what is granted; the slots of the refused are free again. */
  async #claim(actor: ActorKind, rung: Rung[], workClass: WorkClass): Promise<void> {
    const rings = rung.filter(ring => this.#hold(ring));
    this.#ended(workClass, rung.length - rings.length);
    const grants = await this.#claims.claim(actor, rings);
    for (const ring of rings) ring.ack();
    const granted = new Set(grants.map(grant => grant.command_id));
    for (const { command_id } of rings) if (!granted.has(command_id)) this.#held.drop(command_id);
    this.#ended(workClass, rings.length - grants.length);
    await Promise.all(grants.map(grant => this.#run(actor, grant, workClass)));
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
    this.#held.add(ring.command_id);
    return true;
  }

  /** Runs a command, and then each one that the owner hands over with the answer to its outcome. */
  async #run(actor: ActorKind, first: Grant, workClass: WorkClass): Promise<void> {
    let grant: Grant | undefined = first;
    const slot = { workClass };
    const hands = new Hands(this.#runtime.clock);
    try {
      while (grant) {
        hands.begin();
        const signal = this.#held.add(grant.command_id);
        reclass(this.slots, slot, grant.kind);
        const work = { actor, grant, hands, slot };
        const next: Grant | undefined = await this.#runOne(work, signal);
        this.#held.drop(grant.command_id);
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
    { actor, grant, hands, slot }: Work,
    signal: AbortSignal,
  ): Promise<Grant | undefined> {
    if (this.#stopping.signal.aborted) return this.#giveBack(actor, grant);
    const { execution_id, stream_id, command_id, delivery, step } = grant;
    const { worker_id } = this.me;
    const ids = { actor, execution_id, stream_id, command_id, delivery, worker_id };
    const next = () => (hands.goOn(actor) ? this.#wantsNext(slot, actor) : {});
    const suspended = <T>(wait: Promise<T>) =>
      this.slots.suspended(slot.workClass, this.#seclusion.waiting(command_id, wait));
    try {
      const command = await openCommand(this.#runtime, this.#service.broker, grant, {
        signal,
        suspended,
        turns: this.#turns,
        waiting: wait => this.#longWaits.around(wait, suspended),
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
    return this.#held.abandon(commandIds);
  }

  #wantsNext(slot: Slot, actor: ActorKind): Pick<Outcome, "next"> {
    if (this.#stopping.signal.aborted) return {};
    const { me, offers, slots } = this;
    const next = nextClaim(slot, actor, { doorbell: this.#runtime.doorbell, slots, me, offers });
    return next ? { next } : {};
  }

  #capacity(): WorkerCapacity {
    const status = this.#stopping.signal.aborted ? "draining" : "ready";
    const takes = !this.gates.isAskingOthers;
    return capacityOf(this.me, this.slots, { status, takes, ...this.#offers });
  }

  /** What its row says; `unready` tells why no work can come. */
  #told() {
    const { reason } = this.#readiness;
    const { status, ...room } = this.#capacity();
    const unready = reason !== undefined && { unready: reason };
    return { status, capacity: { ...room, free: room.available_slots, ...unready } };
  }

  #readyOrNot(reason: string | undefined): void {
    const { logger } = this.#service;
    if (reason === undefined) logger.info({}, "worker.ready");
    else logger.warn({ reason }, "worker.unready");
    void this.#beats.now();
  }

  #giveBack(actor: ActorKind, grant: Grant): Promise<undefined> {
    const { logger } = this.#service;
    return giveBack({ link: this.#link, logger }, { actor, grant, worker_id: this.me.worker_id });
  }
}
