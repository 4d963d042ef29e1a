// What transactions have left behind in the sessions of a pool: behind PgBouncer the next stranger
// would find it.
import pg from "pg";

/** Parameters that PgBouncer itself carries from client to client. */
const CARRIED = [
  "application_name",
  "client_encoding",
  "DateStyle",
  "standard_conforming_strings",
  "TimeZone",
];
/** More sessions than one pool has. */
const VISITS_MAX = 60;

interface Session {
  pid: number;
  found: string[] | null;
}

/** Settings, named statements, listeners, advisory locks, cursors and temporary tables, by name. */
export async function leftInSessions(url: string): Promise<string[]> {
  const client = new pg.Client(url);
  await client.connect();
  const left = new Set<string>();
  try {
    // Sessions serve in turn: when the first one comes again, all that are free have been seen.
    const seen = new Set<number>();
    for (let visit = 0; visit < VISITS_MAX; visit += 1) {
      const { rows } = await client.query<Session>(
        `select pg_backend_pid() as pid, array(
           select 'setting ' || name from pg_settings
           where source = 'session' and name <> all ($1)
           union all select 'statement ' || name from pg_prepared_statements
           union all select 'listener ' || channel from pg_listening_channels() as channel
           union all select 'advisory lock ' || objid from pg_locks
           where locktype = 'advisory' and pid = pg_backend_pid()
           union all select 'cursor ' || name from pg_cursors where is_holdable
           union all select 'temporary table ' || relname from pg_class
           where relnamespace = pg_my_temp_schema() and relkind = 'r') as found`,
        [CARRIED],
      );
      const [session] = rows;
      for (const name of session?.found ?? []) left.add(name);
      if (!session || (seen.size > 1 && seen.has(session.pid))) break;
      seen.add(session.pid);
    }
  } finally {
    await client.end();
  }
  return [...left];
}
