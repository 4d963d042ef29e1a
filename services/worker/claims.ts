// Claims on their way to their owners: a lost answer costs nothing, the same claim_id is answered
// again.
import { randomUUID } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import type { ClaimBatch } from "../../mixins/actor-service.ts";
import { batched } from "../../mixins/batched.ts";
import { backoffMs, type Clock } from "../../mixins/clock.ts";
import { splitBySize } from "../../mixins/json-size.ts";
import { byOwner } from "../../mixins/routing.ts";
import type { ServerLink } from "../../mixins/server-link.ts";
import { BATCH_MAX } from "../../schemas/actor-requests.ts";
import { isUrgent, type ActorKind, type Ring } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { WorkerIdentity } from "./identity.ts";

/** A claim that cannot be made is given up after this long: the command is rung again. */
const CLAIM_MS = 20_000;

/** What a worker claims with. */
export interface Claimer {
  broker: ServiceBroker;
  clock: Clock;
  link: ServerLink;
  me: WorkerIdentity;
}

/**
 * The claims of a worker. Items of one turn of the event loop go together, whichever pull brought
 * their rings: the one that ends a wait comes alone, and the others right behind it. A step does
 * not wait for others.
 */
export class Claims {
  readonly #claimer: Claimer;
  readonly #of = new Map<ActorKind, (ring: Ring) => Promise<Grant | undefined>>();

  constructor(claimer: Claimer) {
    this.#claimer = claimer;
  }

  /** Claims what the rings announce, one call an owner; what is refused is somebody else's. */
  async claim(actor: ActorKind, rings: Ring[]): Promise<Grant[]> {
    const grants = await Promise.all(rings.map(ring => this.#one(actor)(ring)));
    return grants.filter(grant => grant !== undefined);
  }

  #one(actor: ActorKind): (ring: Ring) => Promise<Grant | undefined> {
    let claim = this.#of.get(actor);
    if (!claim) {
      const run = (rings: Ring[]) => claimAll(this.#claimer, actor, rings);
      const later = isUrgent({ actor }) ? queueMicrotask : setImmediate;
      claim = batched(run, { inFlight: Infinity, later });
      this.#of.set(actor, claim);
    }
    return claim;
  }
}

async function claimAll(
  claimer: Claimer,
  actor: ActorKind,
  rings: Ring[],
): Promise<(Grant | undefined)[]> {
  const claim_id = randomUUID();
  const owned = byOwner(claimer.broker, actor, rings);
  const groups = owned.flatMap(group => splitBySize(group, Infinity, BATCH_MAX));
  const grants = await Promise.all(
    groups.map(group => claimGroup(claimer, { actor, rings: group, claim_id })),
  );
  const granted = new Map(grants.flat().map(grant => [grant.command_id, grant]));
  return rings.map(ring => granted.get(ring.command_id));
}

/** A lost answer costs nothing: the same claim_id is answered again (design §5 rule 4). */
async function claimGroup(
  { broker, clock, link, me }: Claimer,
  request: { actor: ActorKind; rings: Ring[]; claim_id: string },
): Promise<Grant[]> {
  const { actor, rings, claim_id } = request;
  const { worker_id, incarnation } = me;
  const started = clock.now();
  const grants: Grant[] = [];
  let claims: ClaimBatch["claims"] = rings.map(({ execution_id, stream_id, command_id }) => {
    return { execution_id, stream_id, command_id };
  });
  for (let tries = 0; claims.length > 0 && clock.now() - started < CLAIM_MS; tries += 1) {
    if (tries > 0) await clock.sleep(backoffMs(tries, 50, 2_000));
    try {
      const replies = await link.claim(actor, { worker_id, incarnation, claim_id, claims });
      for (const reply of replies) {
        if (reply.status === "ok" && reply.grant) grants.push(reply.grant);
      }
      claims = claims.filter((_claim, index) => replies[index]?.status === "failed");
    } catch (error) {
      if (tries % 10 === 0) broker.logger.warn({ err: error, actor }, "worker.claim_later");
    }
  }
  return grants;
}
