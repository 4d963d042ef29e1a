// A command that its worker does not run to its end is for others at once.
import type { Service } from "moleculer";
import type { ServerLink } from "../../mixins/server-link.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";

interface Held {
  actor: ActorKind;
  grant: Grant;
  worker_id: string;
}

/** Gives a command back, uncharged. Never throws. */
export async function giveBack(
  { link, logger }: { link: Pick<ServerLink, "release">; logger: Service["logger"] },
  { actor, grant, worker_id }: Held,
): Promise<undefined> {
  const { execution_id, stream_id, command_id, delivery } = grant;
  const release = { execution_id, stream_id, command_id, delivery, worker_id };
  // A release that is lost costs its lease: this worker is gone, or says that it does not hold it.
  await link.release(actor, release).catch((error: unknown) => {
    logger.warn({ err: error, command_id }, "worker.release_lost");
  });
  return undefined;
}
