// A claim at the server's door: finds the stream that issued the command, and asks its owner.
import { randomUUID } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import type { ClaimBatch, Reply } from "../../mixins/actor-service.ts";
import { batched } from "../../mixins/batched.ts";
import { keepNewest } from "../../mixins/newest.ts";
import { findCommand } from "../../mixins/postgres/command.ts";
import { readHeads } from "../../mixins/postgres/stream.ts";
import { callOwner } from "../../mixins/routing.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { CommandsClaim } from "../../schemas/command-requests.ts";
import type { ActorKind } from "../../schemas/decider.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";

/** How long an owner may take. */
const CLAIM_MS = 20_000;

/** A stream and the service that decides there. */
export interface Place {
  execution_id: string;
  stream_id: string;
  actor: ActorKind;
}

/** Where a command lives: as its worker says, else as the log says. Throws Rejected 404. */
export async function placeOf(
  runtime: Runtime,
  { command_id, stream_id }: { command_id: string; stream_id?: string | undefined },
): Promise<Place> {
  const execution_id = command_id.split(":")[0] ?? "";
  const found = stream_id ?? (await issuedBy(runtime, { execution_id, command_id }));
  const actor = found === execution_id ? "executions" : await kindOf(runtime, found);
  return { execution_id, stream_id: found, actor };
}

type KindReader = (streamId: string) => Promise<ActorKind>;

const readers = new WeakMap<Runtime, KindReader>();

/** Who decides in a stream that is no execution's. */
function kindOf(runtime: Runtime, streamId: string): Promise<ActorKind> {
  let reader = readers.get(runtime);
  if (!reader) readers.set(runtime, (reader = kindReader(runtime)));
  return reader(streamId);
}

/** Streams whose kind is remembered, the newest: some 100 bytes each. */
const KINDS_MAX = 10_000;

/** A stream's kind never changes: read once. Questions of many callers go out together. */
function kindReader({ database }: Runtime): KindReader {
  const known = new Map<string, ActorKind>();
  const read = batched(async (ids: string[]) => {
    const { heads } = await readHeads(database, ids);
    return ids.map(id => heads.get(id)?.kind);
  });
  return async streamId => {
    const before = known.get(streamId);
    if (before) return before;
    const found = await read(streamId);
    const kind = found === "fanout" ? "fanout" : "loops";
    // One that is not there yet may still be made.
    if (found !== undefined) known.set(streamId, kind);
    keepNewest(known, KINDS_MAX);
    return kind;
  };
}

async function issuedBy(
  { database }: Runtime,
  command: { execution_id: string; command_id: string },
): Promise<string> {
  const { command_id } = command;
  const found = await findCommand(database, command);
  if (!found) throw new Rejected(`there is no command ${command_id}`, 404, { command_id });
  return found.stream_id;
}

/** The grant of a claim. Throws Rejected 409 when another worker holds it or it is over. */
export async function claimCommand(
  runtime: Runtime,
  broker: ServiceBroker,
  request: CommandsClaim,
): Promise<Grant> {
  const { command_id, worker_id } = request;
  const { actor, execution_id, stream_id } = await placeOf(runtime, request);
  const params: ClaimBatch = {
    worker_id,
    incarnation: request.incarnation ?? worker_id,
    claim_id: request.claim_id ?? randomUUID(),
    claims: [{ execution_id, stream_id, command_id }],
  };
  const [reply] = await callOwner<Reply<{ grant?: Grant }>[], ClaimBatch>(broker, stream_id, {
    service: actor,
    action: "claim",
    params,
    timeoutMs: CLAIM_MS,
  });
  if (reply?.status === "ok" && reply.grant) return reply.grant;
  if (reply?.status === "refused") {
    throw new Rejected(reply.message, 409, { reason: reply.reason, command_id });
  }
  throw new Unavailable(`the owner of ${command_id} cannot answer now`);
}
