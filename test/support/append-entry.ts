// A process that appends to given streams again and again, a group of all of them at once:
// `append-entry URL ROUNDS up|down STREAM_ID…` waits for a line on its input, and prints what
// became of its appends as JSON. `sabotaged` instead of `down`: its locks are taken in that order.
import { createEventStore, type StreamName } from "../../mixins/event-store.ts";
import type { Database } from "../../mixins/postgres/index.ts";
import { startProcess } from "./actors.ts";

const [, , url = "", rounds = "0", order, ...ids] = process.argv;
const ORDERED = "where expected > 0 order by stream_id";

/** Heads are locked in the order in which nobody else locks them, by a function of its own. */
async function backwards(database: Database): Promise<Database> {
  const { rows } = await database.query<{ made: string }>(
    "select pg_get_functiondef('noetl.append_events'::regproc) as made",
  );
  const made = rows[0]?.made ?? "";
  if (!made.includes(ORDERED)) throw new Error("the append does not lock as it did");
  const down = ORDERED.replace("stream_id", "stream_id desc");
  await database.query(made.replace(ORDERED, down).replace("append_events", "append_backwards"));
  return {
    ...database,
    query: (text, values) =>
      database.query(text.replace("noetl.append_events(", "noetl.append_backwards("), values),
  };
}

const self = await startProcess(url, { size: 2 });
const database = order === "sabotaged" ? await backwards(self.database) : self.database;
const store = createEventStore(database, self.clock);
const streams: StreamName[] = ids.map(id => ({ execution_id: id, stream_id: id }));
if (order !== "up") streams.reverse();
const versions = new Map(ids.map(id => [id, 0]));
const ends = { committed: 0, conflict: 0, refused: 0 };

async function catchUp(): Promise<void> {
  const heads = await Promise.all(streams.map(({ stream_id }) => store.readHead(stream_id)));
  for (const head of heads) if (head) versions.set(head.stream_id, head.version);
}

async function appendAll(round: number): Promise<void> {
  const outcomes = await Promise.all(
    streams.map(stream => {
      const meta = { command_id: `${order}-${round}`, chunk_index: 0 };
      const event = { event_id: self.ids.next(), event_type: "call.partial" as const, meta };
      return store.append({
        ...stream,
        kind: "loops",
        expected: versions.get(stream.stream_id) ?? 0,
        events: [event],
        wake_at: self.clock.now() + 600_000,
        ended: false,
        owner: "test",
      });
    }),
  );
  for (const [index, { status }] of outcomes.entries()) {
    ends[status] += 1;
    const id = streams[index]?.stream_id ?? "";
    if (status === "committed") versions.set(id, (versions.get(id) ?? 0) + 1);
  }
  if (outcomes.some(({ status }) => status === "conflict")) await catchUp();
}

process.stdout.write("ready\n");
await new Promise(resolve => process.stdin.once("data", resolve));
const since = performance.now();
await catchUp();
for (let round = 0; round < Number(rounds); round += 1) await appendAll(round);
const took_ms = Math.round(performance.now() - since);
const { statements, repeats } = store.counters;
process.stdout.write(`${JSON.stringify({ ...ends, statements, repeats, took_ms })}\n`);
await self.stop();
process.exit(0);
