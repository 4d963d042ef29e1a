// Commands that a server gives to this worker unasked, because it said that it has room to spare.
import type { Clock } from "../../mixins/clock.ts";
import { keepNewest } from "../../mixins/newest.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { Given, WorkerTake } from "../../schemas/actor-requests.ts";
import { ringKey, type ActorKind } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { classOf, type WorkClass } from "../../schemas/work-class.ts";
import type { Gates } from "./gate/open.ts";
import type { Held } from "./held.ts";
import type { WorkerIdentity } from "./identity.ts";

/** What comes later than this after it was sent may be somebody else's by now. */
const FRESH_MS = 500;
/** Commands taken that are remembered at most: what is told twice runs once. */
const TAKEN_MAX = 5_000;

export interface TakePorts {
  clock: Pick<Clock, "now">;
  link: Pick<ServerLink, "claim">;
  me: WorkerIdentity;
  gates: Gates;
  held: Held;
  /** Aborts when the worker takes nothing any more. */
  signal: AbortSignal;
  /** Runs it in a slot of this class, which is given when it has ended. */
  run(actor: ActorKind, grant: Grant, workClass: WorkClass): void;
}

/** Takes what it has room for; the others are rung. */
export class Taker {
  readonly #ports: TakePorts;
  readonly #taken = new Set<string>();

  constructor(ports: TakePorts) {
    this.#ports = ports;
  }

  /** Commands that this worker has now, and runs. */
  async take({ incarnation, given, ...sent }: WorkerTake): Promise<{ taken: string[] }> {
    // What was given to the one before is not known here.
    if (incarnation !== this.#ports.me.incarnation) return { taken: [] };
    const have = await Promise.all(given.map(one => this.#takeOne(one, sent)));
    return { taken: given.flatMap(({ grant }, at) => (have[at] ? [grant.command_id] : [])) };
  }

  async #takeOne(one: Given, { actor, at }: Pick<WorkerTake, "actor" | "at">): Promise<boolean> {
    const { clock, held, run } = this.#ports;
    const { grant } = one;
    const { command_id } = grant;
    if (held.has(command_id) || this.#taken.has(ringKey(grant))) return true;
    held.add(command_id);
    let isTaken = false;
    try {
      const isFresh = Math.abs(clock.now() - at) < FRESH_MS;
      const workClass = classOf(grant.kind ?? "");
      const isMine = isFresh || (await this.#confirmed(one, actor));
      isTaken = isMine && (await this.#hasRoom(workClass));
      if (isTaken) run(actor, grant, workClass);
    } finally {
      if (isTaken) this.#remember(grant);
      else held.drop(command_id);
    }
    return isTaken;
  }

  #remember(grant: Grant): void {
    this.#taken.add(ringKey(grant));
    keepNewest(this.#taken, TAKEN_MAX);
  }

  /** Whether it is still this worker's: the claim of it is answered again. */
  async #confirmed({ claim_id, grant }: Given, actor: ActorKind): Promise<boolean> {
    const { link, me } = this.#ports;
    const { worker_id, incarnation } = me;
    const { execution_id, stream_id, command_id } = grant;
    const claims = [{ execution_id, stream_id, command_id }];
    const [reply] = await link.claim(actor, { worker_id, incarnation, claim_id, claims });
    return reply?.status === "ok" && reply.grant?.delivery === grant.delivery;
  }

  /** A slot, if everybody who is asked has room at this moment. */
  async #hasRoom(workClass: WorkClass): Promise<boolean> {
    const { gates, signal } = this.#ports;
    if (gates.isAskingOthers || signal.aborted) return false;
    return gates.of[workClass].gate.takeOne(signal);
  }
}
