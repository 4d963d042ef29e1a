// Inputs of workers, sent on to the node that keeps appending first to their stream (design §5
// rule 1): it decides them together with its own, where a rival would lose again and again.
import type { ServiceBroker } from "moleculer";
import { BATCH_MAX } from "../schemas/actor-requests.ts";
import type { ActorKind } from "../schemas/decider.ts";
import { Rejected, Unavailable } from "../schemas/errors.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import type { Reply } from "./actor-service.ts";
import type { Entry } from "./deciding.ts";
import type { StreamName } from "./event-store.ts";
import { MESSAGE_BYTES_MAX, splitBySize } from "./json-size.ts";

/** A rival that does not answer in this time has not decided: the inputs are decided here. */
const RIVAL_PATIENCE_MS = 1_000;

/** Sends entries of one stream to a node; gives back those that are still to be decided here. */
export type Forward = <Input extends { type: string }, Answer>(
  to: string,
  stream: StreamName,
  entries: Entry<Input, Answer>[],
) => Promise<Entry<Input, Answer>[]>;

/** Where a worker's input is taken by another node, and what may go there in one call. */
interface Door {
  action: string;
  /** The key of the list, and what is said once for the whole of it. */
  list: string;
  once: object;
}

function doorOf(input: { type: string }): Door | undefined {
  switch (input.type) {
    case "claim": {
      const { worker_id, incarnation, claim_id } = input as unknown as Record<string, unknown>;
      return { action: "claim", list: "claims", once: { worker_id, incarnation, claim_id } };
    }
    case "outcome":
      return { action: "report", list: "outcomes", once: {} };
    case "release":
      return { action: "release", list: "releases", once: {} };
    default:
      return undefined;
  }
}

/** Forwards through the doors that workers use. What was sent on once is not sent on again. */
export function createForward(broker: ServiceBroker, kind: ActorKind): Forward {
  return async (to, stream, entries) => {
    const groups = Map.groupBy(entries, entry => {
      const door = entry.forwarded ? undefined : doorOf(entry.input);
      return door && JSON.stringify(door);
    });
    const stay = groups.get(undefined) ?? [];
    groups.delete(undefined);
    const calls = [...groups].flatMap(([door, group]) =>
      splitBySize(group, MESSAGE_BYTES_MAX, BATCH_MAX, entry => entry.bytes).map(part =>
        knock(JSON.parse(door as string) as Door, part),
      ),
    );
    return [...stay, ...(await Promise.all(calls)).flat()];

    async function knock({ action, list, once }: Door, part: typeof entries) {
      const params = { ...once, [list]: part.map(({ input }) => ({ ...input, ...stream })) };
      try {
        const replies = await broker.call<Reply<{ grant?: Grant }>[], object>(
          `${kind}.${action}`,
          params,
          { nodeID: to, timeout: RIVAL_PATIENCE_MS, meta: { forwarded: true } },
        );
        return part.filter((entry, index) => !settle(entry, replies[index]));
      } catch {
        return part;
      }
    }
  };
}

/** Tells the sender; false when nothing was said about its input. */
function settle<Input, Answer>(
  entry: Entry<Input, Answer>,
  reply: Reply<{ grant?: Grant }> | undefined,
): boolean {
  if (!reply) return false;
  if (reply.status === "refused") {
    entry.reject(new Rejected(reply.message, 409, { reason: reply.reason }));
  } else if (reply.status === "failed") {
    entry.reject(new Unavailable(reply.error));
  } else {
    // Who sends a worker's input reads nothing of the answer but the grant.
    entry.resolve({ changed: true, grant: reply.grant } as Answer);
  }
  return true;
}
