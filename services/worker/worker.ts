// The worker: fetches rings for its free slots, claims, runs and reports. It never decides what
// comes next.
import { randomUUID } from "node:crypto";
import type { Service } from "moleculer";
import type { Rung } from "../../mixins/notifications.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { abandoned } from "../../schemas/command-failures.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { WORK_CLASSES, type WorkClass } from "../../schemas/work-class.ts";
import { Beats } from "./beats.ts";
import { claimAll } from "./claims.ts";
import { identify, type WorkerIdentity } from "./identity.ts";
import { openGates, type Gates } from "./gate/open.ts";
import { Ledger, reclass, type Slot } from "./ledger.ts";
import { watchNeighbours } from "./neighbours.ts";
import { pullClass } from "./puller.ts";
import { runCursorFrame } from "./cursor-frame.ts";
import { runFrame } from "./frame.ts";
import { LongWaits } from "./long-waits.ts";
import { Readiness } from "./readiness.ts";
import { startRecord } from "./start-record.ts";
import { Reporter, type Outcome, type Settled } from "./reporter.ts";
import { openCommand, runCommand } from "./run.ts";

/** Pause after a run that found the world away. */
const PAUSE_MS = 1_000;
/** Commands one slot takes from hand to hand before it looks what else waits. */
const HANDED_MAX = 32;
/** And for no longer: a loop whose items are slow would keep all slots from everybody else. */
const HANDED_MS = 1_000;

class CommandAbandoned extends Error {}

/** A command in a slot of its class. */
interface Work {
  actor: ActorKind;
  grant: Grant;
  takesNext: () => boolean;
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
  readonly #beats: Beats;
  readonly #readiness: Readiness;
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
    this.#readiness = new Readiness(reason => this.#readyOrNot(reason));
    this.#beats = new Beats({
      ...{ runtime, me: this.me, gates: this.gates },
      told: () => this.#told(),
      held: () => [...this.#held.keys()],
      abort: ids => void this.abort(ids),
      failed: err => service.logger.warn({ err }, "worker.beat_failed"),
    });
  }

  async start(): Promise<void> {
    await this.#beats.begin();
    const { clock, workers } = this.#runtime;
    const { logger } = this.#service;
    this.#unwatch = await watchNeighbours({ clock, workers, logger }, this.me);
    const { limits, gate } = startRecord(this.#runtime.settings, this.gates);
    // One field a limit: a log cuts objects that are long.
    logger.info({ ...this.me, gate, ...limits }, "worker.started");
    this.#unsubscribe = this.#runtime.feed.subscribe(events => this.#abortAbandoned(events));
    this.#fetching = this.#pull();
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
    const { reason } = this.#readiness;
    return { ...this.me, ...this.#capacity(), ...this.#reporter.counters, reason };
  }

  async #drain(): Promise<void> {
    const { clock, workers, settings } = this.#runtime;
    this.#stopping.abort();
    await this.#fetching;
    const cancel = clock.after(settings.node.drainMs, () => {
      for (const controller of this.#held.values()) controller.abort(new Error("worker stops"));
    });
    while (this.#work.size > 0) await Promise.allSettled([...this.#work]);
    cancel();
    this.#beats.end();
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
      pulled: (workClass: WorkClass, why?: string) => this.#readiness.pulled(workClass, why),
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
  async #run(actor: ActorKind, first: Grant, workClass: WorkClass): Promise<void> {
    let grant: Grant | undefined = first;
    const slot = { workClass };
    const now = () => this.#runtime.clock.now();
    const handedUntil = now() + HANDED_MS;
    try {
      for (let handed = 0; grant; handed += 1) {
        const controller: AbortController =
          this.#held.get(grant.command_id) ?? new AbortController();
        this.#held.set(grant.command_id, controller);
        reclass(this.slots, slot, grant.kind);
        const takesNext = () => handed < HANDED_MAX && now() < handedUntil;
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
    const next = () => (takesNext() ? this.#wantsNext(slot) : {});
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

  /**
   * Whoever waits for this slot goes first: a long loop must not keep a short run waiting. The slot
   * is one of the database class until the answer says what is to come, where there is room.
   */
  #wantsNext(slot: Slot): Pick<Outcome, "next"> {
    const { doorbell } = this.#runtime;
    const takesAll = this.slots.move(slot.workClass, "database", 1);
    if (takesAll) slot.workClass = "database";
    const classes = takesAll ? WORK_CLASSES : (["general"] as const);
    const isAwaited = classes.some(one => doorbell.waiting(one) > 0);
    if (this.#stopping.signal.aborted || isAwaited) return {};
    const { worker_id, incarnation } = this.me;
    const claim = { worker_id, incarnation, claim_id: randomUUID() };
    return { next: { ...claim, ...(!takesAll && { only: "general" }) } };
  }

  #capacity() {
    const { caps, busy } = this.slots;
    return { slots: caps.all, free: Math.max(0, caps.all - busy) };
  }

  /** What its row says; `unready` tells why no work can come. */
  #told() {
    const { reason } = this.#readiness;
    const capacity = { ...this.#capacity(), ...(reason !== undefined && { unready: reason }) };
    return { status: this.#stopping.signal.aborted ? "draining" : "ready", capacity } as const;
  }

  #readyOrNot(reason: string | undefined): void {
    const { logger } = this.#service;
    if (reason === undefined) logger.info({}, "worker.ready");
    else logger.warn({ reason }, "worker.unready");
    void this.#beats.now();
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
}
