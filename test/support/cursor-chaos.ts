/**
 * Plays a loop over a cursor in a random order: frames told in parts, some of it twice, workers
 * that die with rows in their hands, claims that fail, words that come late.
 */
import type { Effect } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { claimFailure, leaving, rowsReply, type Queue, type Taken } from "./cursor-play.ts";
import { EXECUTION_ID, type Play } from "./execution-play.ts";
import { pick, type Random } from "./random-flows.ts";
import { ok, type Reply } from "./worker-replies.ts";

/** A frame in a worker's hands. */
interface Job {
  grant: Grant;
  worker: string;
  /** By their numbers in the frame; none before the claim. */
  rows: Map<number, Taken> | undefined;
  /** Said before: it may be said again. */
  said: Reply[];
}

export interface CursorChaosOptions {
  random: Random;
  queue: Queue;
  /** Turns in which anything may happen, before the rest is played in peace. */
  turns: number;
  /** It may be cancelled or stopped. */
  ends: boolean;
}

export class CursorChaos {
  readonly play: Play;
  readonly queue: Queue;
  /** Keys of rows that the owner took, and the rows. */
  readonly accepted: string[] = [];
  readonly acceptedRows: number[] = [];
  /** Workers died so often with one claim, or it failed so often, that its slot gave up. */
  gaveUp = false;
  readonly #options: CursorChaosOptions;
  #jobs: Job[] = [];
  readonly #ghosts: Job[] = [];
  #names = 2;
  #claims = 0;
  #peace = false;

  constructor(play: Play, options: CursorChaosOptions) {
    this.play = play;
    this.queue = options.queue;
    this.#options = options;
  }

  run(): this {
    const { random, turns } = this.#options;
    for (let turn = 0; turn < turns && !this.#isOver(); turn += 1) {
      this.play.now += Math.floor(random() * 500);
      this.#act(random());
    }
    this.#peace = true;
    for (let turn = 0; !this.#isOver(); turn += 1) {
      if (turn > 3_000) throw new Error("the run does not end");
      this.play.now += 5_000;
      this.#wakeAll();
      this.#carry();
      this.#claim();
      for (const job of [...this.#jobs]) this.#finish(job);
    }
    for (const ghost of this.#ghosts) this.#haunt(ghost);
    this.gaveUp = this.play.all("command.failed").length > 0;
    return this;
  }

  #isOver(): boolean {
    return this.play.terminal !== undefined && this.play.effects().length === 0;
  }

  #act(roll: number): void {
    const { random, ends } = this.#options;
    const job = pick(random, this.#jobs);
    if (roll < 0.25) return this.#claim();
    if (roll < 0.35) return this.#carry();
    if (roll < 0.43) return this.#wakeAll();
    if (roll < 0.5) return this.#haunt(pick(random, [...this.#ghosts, ...this.#jobs]));
    if (roll < 0.55) return this.#kill();
    if (roll < 0.56 && ends) return this.#end(random() < 0.5);
    if (!job) return;
    if (roll < 0.58) return this.#release(job);
    if (roll < 0.62) return void this.#say(job, rowsReply({}, { final: false }));
    if (roll < 0.8) return this.#tellSome(job);
    return this.#finish(job);
  }

  #claim(): void {
    const rings = this.play
      .effects()
      .flatMap(({ effect }) => (effect.kind === "ring" ? [effect.ring] : []));
    const { random } = this.#options;
    const ring = this.#peace ? rings[0] : pick(random, rings);
    const worker = pick(random, [...this.play.alive]);
    if (!ring) return;
    const claimId = `x${(this.#claims += 1)}`;
    const grant = this.play.try(() => this.play.claimRing(ring, { worker, claimId }));
    if (grant?.cursor) this.#jobs.push({ grant, worker, rows: undefined, said: [] });
    else if (grant) this.play.report(grant, ok(), worker);
  }

  /** The job's rows: of its claim, which happens once, or of what the last frame left. */
  #rowsOf(job: Job): Map<number, Taken> {
    if (job.rows) return job.rows;
    const { left } = job.grant.cursor ?? {};
    const rows = this.queue.take(job.grant);
    const all = (left?.rows ?? rows) as unknown as Taken[];
    job.rows = new Map(rows.map(row => [all.findIndex(one => one.key === row.key), row]));
    return job.rows;
  }

  #tellSome(job: Job): void {
    const { random } = this.#options;
    const some = [...this.#rowsOf(job).keys()].filter(() => random() < 0.5);
    if (some.length === 0) return;
    const failed = some.filter(() => random() < 0.1);
    const well = some.filter(number => !failed.includes(number));
    const rows = { ok: well, failed };
    this.#say(job, rowsReply(rows, { final: false }), some);
  }

  #finish(job: Job): void {
    const { random } = this.#options;
    this.#jobs = this.#jobs.filter(one => one !== job);
    this.#ghosts.push(job);
    const { left } = job.grant.cursor ?? {};
    if (!job.rows && !left && random() < (this.#peace ? 0 : 0.08)) {
      return void this.#say(job, claimFailure(random() < 0.9));
    }
    const rows = this.#rowsOf(job);
    const numbers = [...rows.keys()];
    if (numbers.length === 0 && !left && job.said.every(isBeat)) {
      return void this.#say(job, rowsReply({}, { drained: true }));
    }
    const isCut = !this.#peace && numbers.length > 1 && random() < 0.3;
    const done = isCut ? numbers.slice(0, 1) : numbers;
    const rest = numbers.slice(done.length).map(number => rows.get(number) as Taken);
    const more = rest.length > 0 ? leaving(rest) : {};
    const isTaken = this.#say(job, rowsReply({ ok: done }, more), done);
    // What is left to the next frame is in no hands any more; what was refused is stale some day.
    if (isTaken) rows.clear();
    else this.#abandon(job);
  }

  /** Says something, and notes what of it was taken. */
  #say(job: Job, reply: Reply, numbers: number[] = []): boolean {
    const before = this.play.log.length;
    job.said.push(reply);
    this.play.try(() => this.play.report(job.grant, reply, job.worker));
    if (this.play.log.length === before) return false;
    for (const number of numbers) {
      const row = job.rows?.get(number) as Taken;
      this.accepted.push(row.key);
      this.acceptedRows.push(row.row);
      job.rows?.delete(number);
    }
    return true;
  }

  /** Something said before is said again: by a dead worker, or because its answer was lost. */
  #haunt(ghost: Job | undefined): void {
    const reply = pick(this.#options.random, ghost?.said ?? []);
    if (!ghost || !reply) return;
    const before = this.play.all("frame.committed").length;
    this.play.try(() => this.play.report(ghost.grant, reply, ghost.worker));
    const after = this.play.all("frame.committed").length;
    if (after !== before) throw new Error(`${ghost.grant.command_id}: the same rows twice`);
  }

  /** Its rows lie in the table as claimed, until they are stale: unless the log has them. */
  #abandon(job: Job): void {
    this.#jobs = this.#jobs.filter(one => one !== job);
    this.#ghosts.push(job);
    const { left } = job.grant.cursor ?? {};
    if (!left) this.queue.giveBack([...(job.rows?.values() ?? [])]);
    job.rows = new Map();
  }

  #release(job: Job): void {
    const { command_id, delivery, stream_id } = job.grant;
    const release = { type: "release", command_id, delivery, worker_id: job.worker };
    this.play.try(() => this.play.send(stream_id, release));
    this.#abandon(job);
  }

  #kill(): void {
    const worker = pick(this.#options.random, [...this.play.alive]);
    this.play.alive.delete(worker);
    this.play.alive.add(`w${(this.#names += 1)}`);
    for (const job of this.#jobs.filter(one => one.worker === worker)) this.#abandon(job);
  }

  #carry(): void {
    const messages = this.play.effects().filter(({ effect }) => effect.kind === "message");
    const message = pick(this.#options.random, messages);
    if (!message) return;
    const lost = !this.#peace && this.#options.random() < 0.3;
    this.play.carry(message.stream, message.effect as Effect & { kind: "message" }, lost);
  }

  #wakeAll(): void {
    for (const id of [...this.play.streams.keys()]) this.play.wake(id);
  }

  #end(isCancel: boolean): void {
    if (isCancel) {
      this.play.try(() => this.play.ask({ type: "cancel", reason: "chaos" }));
      return;
    }
    const loop = [...this.play.streams.keys()].find(id => id !== EXECUTION_ID);
    // A loop that runs needs nothing of its start.
    if (loop) this.play.send(loop, { type: "stop", reason: "chaos" });
  }
}

function isBeat({ frame }: Reply): boolean {
  return frame?.ok === "" && frame.failed === "";
}
