// Claims on their way to their owners: a lost answer costs nothing, the same claim_id is answered
// again.
import { randomUUID } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import type { ClaimBatch, Reply } from "../../mixins/actor-service.ts";
import { backoffMs, type Clock } from "../../mixins/clock.ts";
import type { ActorKind, Ring } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import type { WorkerIdentity } from "./identity.ts";

/** A claim that cannot be made is given up after this long: the command is rung again. */
const CLAIM_MS = 20_000;

type Replies = Reply<{ grant?: Grant }>[];

/** Claims what the rings announce, one call for all; those that are refused are somebody else's. */
export async function claimAll(
  broker: ServiceBroker,
  clock: Clock,
  me: WorkerIdentity,
  request: { actor: ActorKind; rings: Ring[] },
): Promise<Grant[]> {
  const { actor, rings } = request;
  const { worker_id, incarnation } = me;
  const claim_id = randomUUID();
  const started = clock.now();
  const grants: Grant[] = [];
  let claims: ClaimBatch["claims"] = rings.map(({ execution_id, stream_id, command_id }) => {
    return { execution_id, stream_id, command_id };
  });
  for (let tries = 0; claims.length > 0 && clock.now() - started < CLAIM_MS; tries += 1) {
    if (tries > 0) await clock.sleep(backoffMs(tries, 50, 2_000));
    const batch: ClaimBatch = { worker_id, incarnation, claim_id, claims };
    try {
      const options = { timeout: CLAIM_MS };
      const replies = await broker.call<Replies, ClaimBatch>(`${actor}.claim`, batch, options);
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
