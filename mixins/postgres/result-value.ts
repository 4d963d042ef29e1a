// noetl.result_value: large values by key. A key names its value's hash, so none is written twice.
import type { Query } from "./index.ts";

export async function writeValue(
  query: Query,
  value: { key: string; execution_id: string; bytes: Buffer },
): Promise<void> {
  await query.query(
    `insert into noetl.result_value (key, execution_id, bytes) values ($1, $2, $3)
     on conflict (key) do nothing`,
    [value.key, value.execution_id, value.bytes],
  );
}

/** The bytes under a key, undefined when there are none. */
export async function readValue(query: Query, key: string): Promise<Buffer | undefined> {
  const { rows } = await query.query<{ bytes: Buffer }>(
    "select bytes from noetl.result_value where key = $1",
    [key],
  );
  return rows[0]?.bytes;
}
