// The way of commands to workers that have not asked for them.
import type { ServiceBroker } from "moleculer";
import { BATCH_MAX, type Given, type WorkerTake } from "../schemas/actor-requests.ts";
import type { ActorKind } from "../schemas/decider.ts";
import type { AssignPorts, Brought } from "./assignments.ts";
import { batched } from "./batched.ts";
import type { Claimant } from "./dispatch.ts";
import { splitBySize } from "./json-size.ts";
import { keepNewest } from "./newest.ts";
import { isOffered, isTooLarge, isUnreachable } from "./routing.ts";
import type { Runtime } from "./runtime.ts";

/** A worker that does not answer in this time is asked once more, and then passed over. */
const TAKE_MS = 1_000;
const TRIES = 2;
/** Workers to which a way is kept. */
const WAYS_MAX = 1_000;

type Way = (given: Given) => Promise<Brought>;

/** Over the broker: what is given to one worker in a turn of the event loop goes together. */
export function assignPorts(
  { dispatch, doorbell, clock }: Pick<Runtime, "dispatch" | "doorbell" | "clock">,
  broker: ServiceBroker,
  actor: ActorKind,
): AssignPorts {
  const ways = new Map<string, Way>();

  function wayTo(holder: Claimant): Way {
    const key = `${holder.worker_id} ${holder.incarnation}`;
    let way = ways.get(key);
    if (!way) {
      const run = (given: Given[]) => bringAll(holder, given);
      way = batched(run, { inFlight: Infinity });
      ways.set(key, way);
      keepNewest(ways, WAYS_MAX);
    }
    return way;
  }

  async function bringAll(holder: Claimant, given: Given[]): Promise<Brought[]> {
    const groups = splitBySize(given, undefined, BATCH_MAX);
    return (await Promise.all(groups.map(group => bring(holder, group)))).flat();
  }

  async function bring(holder: Claimant, given: Given[]): Promise<Brought[]> {
    const { worker_id: nodeID, incarnation } = holder;
    for (let tries = 1; ; tries += 1) {
      try {
        const params: WorkerTake = { actor, incarnation, at: clock.now(), given };
        const options = { nodeID, timeout: TAKE_MS };
        const { taken } = await broker.call<Taken, WorkerTake>("worker.take", params, options);
        const has = new Set(taken);
        return given.map(({ grant }) => (has.has(grant.command_id) ? "taken" : "refused"));
      } catch (error) {
        // What fits into no message nobody has seen: whoever claims it finds out why.
        if (isTooLarge(error)) return given.map(() => "refused");
        if (!isUnreachable(error)) throw error;
        if (tries < TRIES) continue;
        // Until it speaks again it is given nothing.
        dispatch.leave(nodeID);
        return given.map(() => "silent");
      }
    }
  }

  return {
    // A worker speaks before all nodes have heard what its node offers.
    choose: ring =>
      doorbell.connected()
        ? dispatch.assign(ring, id => isOffered(broker, "worker.take", id))
        : undefined,
    forget: commandId => dispatch.unassign(commandId),
    bring: (holder, grant) => wayTo(holder)({ claim_id: holder.claim_id, grant }),
  };
}

interface Taken {
  taken: string[];
}
