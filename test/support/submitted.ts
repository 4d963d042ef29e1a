// An execution submitted over HTTP, followed in the database and broken at chosen moments.
import { strict as assert } from "node:assert";
import { setImmediate as turn } from "node:timers/promises";
import { ask, until } from "./actors.ts";
import type { MockApi } from "./mock-api.ts";
import type { NoetlServer } from "./process.ts";

/** Registers and starts a playbook; gives the execution's id. */
export async function submit(
  server: NoetlServer,
  playbook: string,
  payload: object,
): Promise<string> {
  const registered = await server.ask("POST", "/catalog/register", playbook);
  assert.equal(registered.status, 200, JSON.stringify(registered.body));
  const { path } = registered.body;
  const started = await server.ask("POST", "/execute", { path, payload });
  assert.equal(started.status, 200, JSON.stringify(started.body));
  assert.equal(started.body["status"], "RUNNING");
  return String(started.body["execution_id"]);
}

/** Waits until the API was asked so often, to a turn of the event loop. */
export async function asked(api: MockApi, route: string, times: number): Promise<void> {
  const end = performance.now() + 30_000;
  while ((api.calls[route] ?? 0) < times) {
    assert.ok(performance.now() < end, `${route} was asked ${api.calls[route] ?? 0} times`);
    await turn();
  }
}

/** The status that the row of an execution shows. */
export async function statusOf(url: string, executionId: string): Promise<string | undefined> {
  const text = "select status from noetl.execution where execution_id = $1";
  const [row] = await ask<{ status: string }>(url, text, [executionId]);
  return row?.status;
}

/** Waits for the end and gives the status and how long it took from here on. */
export async function ended(
  url: string,
  executionId: string,
  limitMs = 60_000,
): Promise<{ status: string; tookMs: number }> {
  const begun = performance.now();
  // The database may be the one that is away.
  const look = () => statusOf(url, executionId).catch(() => undefined);
  const status = await until(async () => {
    const word = await look();
    return word !== "RUNNING" && word !== "PAUSED" && word;
  }, limitMs).catch(async () => assert.fail(`no end in ${limitMs} ms: ${await sight(url)}`));
  return { status, tookMs: Math.round(performance.now() - begun) };
}

/** What somebody would look at who wonders why nothing happens. */
export async function sight(url: string): Promise<string> {
  const [heads, workers, events] = await Promise.all([
    ask(url, "select *, now() from noetl.stream where status = 'open'"),
    ask(url, "select worker_id, incarnation, status, seen_at, now() from noetl.runtime"),
    ask(
      url,
      `select version, event_type, meta->>'command_id' as command, meta->>'delivery' as delivery,
              meta->>'worker_id' as worker, created_at
       from noetl.event order by event_id desc limit 12`,
    ),
  ]);
  return JSON.stringify({ heads, workers, events }, null, 1);
}

/** The longest silence between two events of an execution, milliseconds: what a fault has cost. */
export async function longestSilenceMs(url: string, executionId: string): Promise<number> {
  const [row] = await ask<{ ms: number }>(
    url,
    `select max(gap)::integer as ms from (
       select extract(epoch from created_at - lag(created_at) over (order by created_at)) * 1000
         as gap
       from noetl.event where execution_id = $1) gaps`,
    [executionId],
  );
  return row?.ms ?? 0;
}

export interface FlyingCommand {
  command_id: string;
  stream_id: string;
  worker_id: string;
  delivery: number;
  /** Of a loop's iteration. */
  iter_index: number | null;
}

/** Commands that a worker has claimed and not ended: what a fault would hit now. */
export function inFlight(url: string, executionId: string): Promise<FlyingCommand[]> {
  return ask<FlyingCommand>(
    url,
    `select command_id, stream_id, worker_id, delivery, iter_index from (
       select distinct on (meta->>'command_id') event_type, stream_id, meta,
              meta->>'command_id' as command_id, meta->>'worker_id' as worker_id,
              (meta->>'delivery')::integer as delivery, (meta->>'iter_index')::integer as iter_index
       from noetl.event where execution_id = $1 and meta ? 'command_id'
       order by meta->>'command_id', version desc) last
     where event_type = 'command.claimed' or (event_type = 'command.issued' and meta ? 'claim_id')
        or (event_type = 'frame.committed' and not (meta->>'final')::boolean)`,
    [executionId],
  );
}

/** The database's own time, milliseconds since 1970: what events are stamped with. */
export async function databaseNow(url: string): Promise<number> {
  const text = "select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms";
  const [row] = await ask<{ ms: number }>(url, text);
  return row?.ms ?? NaN;
}

/** Milliseconds from `sinceMs` to the next outcome that was accepted; undefined when none was. */
export async function nextOutcomeMs(
  url: string,
  executionId: string,
  sinceMs: number,
): Promise<number | undefined> {
  const [row] = await ask<{ ms: number | null }>(
    url,
    `select (extract(epoch from min(created_at)) * 1000 - $2)::float8 as ms from noetl.event
     where execution_id = $1
       and event_type in ('command.completed', 'command.failed', 'frame.committed')
       and created_at > to_timestamp($2::float8 / 1000)`,
    [executionId, sinceMs],
  );
  return row?.ms ?? undefined;
}

/** Waits until nobody else is in a database: a killed process's last statement has then ended. */
export async function deserted(url: string): Promise<void> {
  await until(async () => {
    const [row] = await ask<{ others: string }>(
      url,
      `select count(*) as others from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()
         and backend_type = 'client backend'`,
    );
    return row?.others === "0";
  }, 20_000);
}

/** Rows of the log of one type. */
export async function countEvents(url: string, executionId: string, type: string): Promise<number> {
  const text = `select count(*)::integer as n from noetl.event
                where execution_id = $1 and event_type = $2`;
  const [row] = await ask<{ n: number }>(url, text, [executionId, type]);
  return row?.n ?? 0;
}
