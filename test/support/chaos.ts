/** Plays an execution in a random order: what may happen at any time does, and some of it twice. */
import type { Effect } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { isLive } from "../../services/executions/state.ts";
import type { Play } from "./execution-play.ts";
import { EXECUTION_ID } from "./execution-play.ts";
import { pick, type Random } from "./random-flows.ts";
import { type Reply } from "./worker-replies.ts";

interface Job {
  grant: Grant;
  worker: string;
}

export interface ChaosOptions {
  random: Random;
  answer: (grant: Grant) => Reply;
  /** Turns in which anything may happen, before the rest is played in peace. */
  turns: number;
  mayCancel: boolean;
  mayPause?: boolean;
  /** How much time passes between two turns of the peaceful rest. */
  restMs?: number;
}

/** Runs a started play to its end. Throws when it does not end within a bound of turns. */
export class Chaos {
  readonly play: Play;
  readonly #options: ChaosOptions;
  #jobs: Job[] = [];
  /** Jobs whose outcome was sent, or whose worker died: they may speak again. */
  readonly #ghosts: Job[] = [];
  #claims = 0;
  cancelled = false;
  /** Pauses, and ends of them. */
  pauses = 0;

  constructor(play: Play, options: ChaosOptions) {
    this.play = play;
    this.#options = options;
  }

  run(): this {
    const { random, turns, mayPause = false } = this.#options;
    for (let turn = 0; turn < turns && !this.#isOver(); turn += 1) {
      this.play.now += Math.floor(random() * 50);
      const act = mayPause && random() < 0.1 ? this.#pauseOrResume : this.#action(random());
      act.call(this);
    }
    for (let turn = 0; !this.#isOver(); turn += 1) {
      if (turn > 3_000) throw new Error("the run does not end");
      this.#goOn();
    }
    for (const ghost of this.#ghosts) this.play.try(() => this.#report(ghost));
    return this;
  }

  #isOver(): boolean {
    return !isLive(this.play.state) && this.play.effects().length === 0;
  }

  #action(roll: number): () => void {
    const { random, mayCancel } = this.#options;
    if (roll < 0.25) return () => this.#claimAny();
    if (roll < 0.5) return () => this.#reportAny();
    if (roll < 0.7) return () => this.#carryAny(random() < 0.3);
    if (roll < 0.8) return () => this.#haunt();
    if (roll < 0.88) return () => void this.play.wake(pick(random, [...this.play.streams.keys()]));
    if (roll < 0.92) return () => this.#release();
    if (roll < 0.97) return () => this.#kill();
    if (roll < 0.98 && mayCancel) return () => this.#cancel();
    return () => this.#claimHeld();
  }

  #rings() {
    return this.play
      .effects()
      .flatMap(({ effect }) => (effect.kind === "ring" ? [effect.ring] : []));
  }

  #claimAny(): void {
    const ring = pick(this.#options.random, this.#rings());
    const worker = pick(this.#options.random, [...this.play.alive]);
    if (!ring) return;
    const claimId = `x${(this.#claims += 1)}`;
    const grant = this.play.try(() => this.play.claimRing(ring, { worker, claimId }));
    if (!grant) return;
    // The same claim again: the answer was slow.
    if (this.#options.random() < 0.2) this.play.claimRing(ring, { worker, claimId });
    this.#jobs.push({ grant, worker });
  }

  /** A rival claims what another holds. */
  #claimHeld(): void {
    const job = pick(this.#options.random, [...this.#jobs, ...this.#ghosts]);
    if (!job) return;
    const claimId = `r${(this.#claims += 1)}`;
    const rival = pick(this.#options.random, [...this.play.alive]);
    const grant = this.play.try(() => this.play.claimRing(job.grant, { worker: rival, claimId }));
    if (grant) this.#jobs.push({ grant, worker: rival });
  }

  #reportAny(): void {
    const job = pick(this.#options.random, this.#jobs);
    if (!job) return;
    this.#jobs = this.#jobs.filter(one => one !== job);
    this.#ghosts.push(job);
    this.play.try(() => this.#report(job));
  }

  #report({ grant, worker }: Job): void {
    this.play.report(grant, this.#options.answer(grant), worker);
  }

  /** An outcome that was sent before, or that a dead worker sent late. */
  #haunt(): void {
    const ghost = pick(this.#options.random, this.#ghosts);
    if (ghost) this.play.try(() => this.#report(ghost));
  }

  #carryAny(lost: boolean): void {
    const messages = this.play.effects().filter(({ effect }) => effect.kind === "message");
    const message = pick(this.#options.random, messages);
    if (!message) return;
    this.play.carry(message.stream, message.effect as Effect & { kind: "message" }, lost);
  }

  #release(): void {
    const job = pick(this.#options.random, this.#jobs);
    if (!job) return;
    const { command_id, delivery, stream_id } = job.grant;
    const release = { type: "release", command_id, delivery, worker_id: job.worker };
    this.play.try(() => this.play.send(stream_id, release));
    this.#jobs = this.#jobs.filter(one => one !== job);
    this.#ghosts.push(job);
  }

  /** A worker dies and another one takes its place. */
  #kill(): void {
    const worker = pick(this.#options.random, [...this.play.alive]);
    this.play.alive.delete(worker);
    this.play.alive.add(`w${(this.play.begun += 1)}`);
    this.#ghosts.push(...this.#jobs.filter(job => job.worker === worker));
    this.#jobs = this.#jobs.filter(job => job.worker !== worker);
  }

  #cancel(): void {
    if (this.play.try(() => this.play.ask({ type: "cancel", reason: "chaos" }))) {
      this.cancelled = true;
    }
  }

  #pauseOrResume(): void {
    const type = this.#options.random() < 0.5 ? "pause" : "resume";
    if (this.play.try(() => this.play.ask({ type }))?.changed) this.pauses += 1;
  }

  /** One thing of what is left to do, in no random order. */
  #goOn(): void {
    // What waits for an upstream, or for its next try, is tried again after a while.
    this.play.now += this.#options.restMs ?? 100;
    this.play.ask({ type: "resume" });
    for (const id of [...this.play.streams.keys()]) this.play.wake(id);
    this.play.deliver();
    const job = this.#jobs[0];
    if (job) {
      this.#jobs.shift();
      this.play.try(() => this.#report(job));
      return;
    }
    const ring = this.#rings()[0];
    if (!ring) return;
    const worker = [...this.play.alive][0] as string;
    const claimId = `x${(this.#claims += 1)}`;
    const grant = this.play.claimRing(ring, { worker, claimId });
    if (grant) this.#jobs.push({ grant, worker });
  }

  get executionEvents() {
    return this.play.eventsOf(EXECUTION_ID);
  }
}
