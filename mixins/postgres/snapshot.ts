// noetl.snapshot: the state of a stream at a version, so that a load reads only the tail.
import type { Json } from "../../schemas/json.ts";
import { encode } from "./encode.ts";
import type { Query } from "./index.ts";

export interface Snapshot {
  version: number;
  state: Json;
}

export async function readSnapshot(query: Query, streamId: string): Promise<Snapshot | undefined> {
  const { rows } = await query.query<{ version: number; state: Json }>(
    "select version, state from noetl.snapshot where stream_id = $1",
    [streamId],
  );
  return rows[0];
}

/** Keeps the newer of the two when rivals write. */
export async function writeSnapshot(
  query: Query,
  streamId: string,
  snapshot: Snapshot,
): Promise<void> {
  await query.query(
    `insert into noetl.snapshot (stream_id, version, state) values ($1, $2, $3::jsonb)
     on conflict (stream_id) do update set
       version = excluded.version, state = excluded.state, created_at = now()
     where noetl.snapshot.version < excluded.version`,
    [streamId, snapshot.version, encode(snapshot.state)],
  );
}
