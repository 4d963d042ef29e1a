/** What `noetl doctor` says about the database: its settings, our tables, and who works on them. */
import { countDeadLetters, listDeadLetters } from "../mixins/postgres/dead-letter.ts";
import {
  countCredentials,
  detectPooler,
  readCheckpoint,
  readClock,
  readLag,
  readPartitions,
  readServer,
  readStreams,
  readWatermark,
} from "../mixins/postgres/doctor.ts";
import type { CheckpointFacts, ServerFacts } from "../mixins/postgres/doctor.ts";
import type { Database } from "../mixins/postgres/index.ts";
import { migrationState } from "../mixins/postgres/migrate.ts";
import { listWorkers, unreadyWhy, type SeenWorker } from "../mixins/postgres/runtime.ts";
import { listUnserved } from "../mixins/postgres/unserved.ts";
import { listParked } from "../mixins/postgres/stream.ts";
import { databaseUrl } from "../schemas/env.ts";
import type { Settings } from "../schemas/env.ts";
import { examine, fail, ok, warn } from "./check.ts";
import { checkReserved } from "./doctor-gate.ts";
import type { Check } from "./check.ts";
import { counted, formatDuration } from "./terminal.ts";
import { unservedLine } from "./workers.ts";

/** From where on something is worth a warning, or is a failure. */
export const DATABASE_LIMITS = {
  /** Postgres 14. */
  versionMin: 140_000,
  latencyWarnMs: 20,
  latencyRounds: 5,
  clockWarnMs: 2_000,
  clockFailMs: 60_000,
  partitionsAhead: 2,
  /** How long facts may wait behind an older transaction. */
  waitWarnMs: 60_000,
  waitFailMs: 900_000,
  /** A reaper looks twice a second; what is picked comes up again after five. */
  overdueMs: 30_000,
  lagWarnMs: 30_000,
  lagFailMs: 300_000,
  /** Rows of one kind that are counted, or named. */
  countMax: 10_000,
  workersMax: 1_000,
  parkedShown: 3,
  quarantineSeconds: 86_400,
  poolerMs: 5_000,
};

export interface DatabaseQuestion {
  url: string;
  settings: Settings;
  limits?: typeof DATABASE_LIMITS;
  nowMs?: () => number;
}

interface Look extends Required<DatabaseQuestion> {
  database: Database;
}

/**
 * All checks of one database, and how many credentials it keeps. Throws Unavailable when it does
 * not answer at first.
 */
export async function checkDatabase(
  database: Database,
  question: DatabaseQuestion,
): Promise<{ checks: Check[]; sealed: number }> {
  const look: Look = { database, limits: DATABASE_LIMITS, nowMs: Date.now, ...question };
  const server = await readServer(database);
  const checks = [
    ...(await examine("database", () => checkAnswer(look, server))),
    checkDurability(server),
    ...(await examine("clock", () => checkClock(look))),
    ...(await examine("pooler", () => checkPooler(look))),
  ];
  const state = await migrationState(database);
  checks.push(judgeMigrations(state));
  if (state.applied === 0 || state.missing.length > 0) return { checks, sealed: 0 };
  checks.push(...(await checkTables(look)));
  return { checks, sealed: await countCredentials(database) };
}

async function checkAnswer({ database, limits }: Look, server: ServerFacts): Promise<Check> {
  const tries: number[] = [];
  for (let round = 0; round < limits.latencyRounds; round += 1) {
    const startMs = performance.now();
    await readClock(database);
    tries.push(performance.now() - startMs);
  }
  const latencyMs = tries.toSorted((a, b) => a - b)[Math.floor(tries.length / 2)] ?? 0;
  const found = `Postgres ${server.version}, answers in ${latencyMs.toFixed(1)} ms`;
  if (server.version_num < limits.versionMin) {
    return fail("database", found, "use Postgres 14 or newer");
  }
  if (server.read_only) {
    return fail("database", `${found}, and takes no writes`, "name the primary in DATABASE_URL");
  }
  if (latencyMs <= limits.latencyWarnMs) return ok("database", found);
  return warn("database", found, "every step waits for it: move it closer, or take load off it");
}

/** What is acknowledged must be on the disk. */
function checkDurability({ fsync, synchronous_commit, full_page_writes }: ServerFacts): Check {
  const found = `fsync ${fsync}, synchronous_commit ${synchronous_commit}`;
  const remedy = "turn it on in postgresql.conf: a power cut loses what was said to be kept";
  if (fsync !== "on" || synchronous_commit === "off") return fail("durability", found, remedy);
  if (full_page_writes === "on") return ok("durability", found);
  return warn("durability", `${found}, full_page_writes ${full_page_writes}`, remedy);
}

/** Deadlines go by the database's clock; logs and people go by ours. */
async function checkClock({ database, limits, nowMs }: Look): Promise<Check> {
  const beforeMs = nowMs();
  const thereMs = await readClock(database);
  const differenceMs = Math.round(thereMs - (beforeMs + nowMs()) / 2);
  const size = Math.abs(differenceMs);
  const word = differenceMs > 0 ? "ahead of" : "behind";
  const found = `the database's is ${formatDuration(size)} ${word} this machine's`;
  if (size < limits.clockWarnMs) return ok("clock", found);
  const remedy = "synchronise both (NTP)";
  return size < limits.clockFailMs ? warn("clock", found, remedy) : fail("clock", found, remedy);
}

async function checkPooler({ database, url, limits, settings }: Look): Promise<Check> {
  // A pooler that hands out single statements refuses these three.
  await database.transaction(query => readClock(query));
  if (await detectPooler(url, limits.poolerMs)) {
    return ok("pooler", "one is in between (PgBouncer or the like), and keeps transactions whole");
  }
  if (settings.database.pooler === "none") return ok("pooler", "none");
  const found = "none, though DB_POOLER says that there is one";
  return warn("pooler", found, "give its address in DATABASE_URL, or POSTGRES_HOST and _PORT");
}

function judgeMigrations(state: { applied: number; missing: string[]; newer: string[] }): Check {
  const { applied, missing, newer } = state;
  if (newer.length > 0) {
    const found = `a newer build has applied ${newer.join(", ")}`;
    return fail("migrations", found, "use that build or a later one");
  }
  if (applied === 0) {
    return warn("migrations", "there are no tables of ours", "noetl db migrate, or any start");
  }
  if (missing.length === 0) return ok("migrations", `${applied} applied, none is missing`);
  const found = `${missing.join(", ")} not applied; tables are not looked at`;
  return warn("migrations", found, "noetl db migrate, or any start");
}

async function checkTables(look: Look): Promise<Check[]> {
  const checkpoint = await readCheckpoint(look.database);
  return [
    ...(await examine("partitions", () => checkPartitions(look))),
    ...(await examine("transactions", () => checkWatermark(look))),
    ...(await examine("parked", () => checkParked(look))),
    ...(await examine("quarantine", () => checkQuarantine(look))),
    ...(await examine("servers", () => checkServers(look, checkpoint))),
    ...(await examine("projection", () => checkProjection(look, checkpoint))),
    ...(await examine("workers", () => checkWorkers(look))),
    ...(await examine("gate", () => checkReserved(look.database, look.settings))),
  ];
}

async function checkPartitions({ database, limits }: Look): Promise<Check[]> {
  const ahead = limits.partitionsAhead;
  const { missing, strays } = await readPartitions(database, { ahead, rowsMax: limits.countMax });
  const checks: Check[] = [];
  if (missing.length > 0) {
    const remedy = "a running server makes them every minute: noetl start or noetl server";
    checks.push(warn("partitions", `${missing.join(", ")} missing`, remedy));
  }
  if (strays > 0) {
    const count = strays === limits.countMax ? `${strays} or more` : String(strays);
    const remedy = "nobody kept partitions ahead: move these rows out before it grows";
    checks.push(fail("partitions", `${count} rows in noetl.event_default`, remedy));
  }
  if (checks.length > 0) return checks;
  return [ok("partitions", `this week's and ${ahead} ahead; event_default is empty`)];
}

/** Readers of the log wait for every older transaction, whoever's it is. */
async function checkWatermark({ database, limits }: Look): Promise<Check> {
  const { waiting_ms, holder, holder_ms } = await readWatermark(database);
  const oldestMs = Math.max(waiting_ms ?? 0, holder_ms ?? 0);
  const who = holder ?? "one that our user may not see";
  const found =
    oldestMs === 0
      ? "none is old"
      : `the oldest that writes is ${who}, ${formatDuration(holder_ms ?? oldestMs)}` +
        (waiting_ms === null ? "" : `; facts wait for ${formatDuration(waiting_ms)}`);
  if (oldestMs < limits.waitWarnMs) return ok("transactions", found);
  const remedy = "end it (pg_terminate_backend, rollback prepared): catching up stands still";
  const judge = oldestMs < limits.waitFailMs ? warn : fail;
  return judge("transactions", found, remedy);
}

async function checkParked({ database, limits }: Look): Promise<Check[]> {
  const { parked, open } = await readStreams(database, limits.overdueMs);
  if (parked === 0) return [ok("parked", `none of ${counted(open, "open stream")}`)];
  const shown = await listParked(database, limits.parkedShown);
  const checks = shown.map(({ execution_id, stream_id, kind, failures, last_error }) => {
    const [reason = ""] = (last_error ?? "").split("\n");
    const found = `${kind} ${stream_id} failed ${failures} times: ${reason}`;
    return fail("parked", found, `noetl events ${execution_id} shows how far it came`);
  });
  const more = parked - shown.length;
  if (more > 0) checks.push(fail("parked", `${more} more`, "see noetl.stream, failures > 0"));
  return checks;
}

/** Commands that killed their workers: something in them, or in the worker, is wrong. */
async function checkQuarantine({ database, limits }: Look): Promise<Check> {
  const { quarantineSeconds: seconds, countMax: max } = limits;
  const count = await countDeadLetters(database, { seconds, max });
  if (count === 0) return ok("quarantine", "no command has killed its workers since yesterday");
  const [newest] = await listDeadLetters(database, { limit: 1 });
  const item = newest?.iter_index == null ? "" : `, item ${newest.iter_index}`;
  const found =
    `${counted(count, "command")} killed their workers since yesterday, the last one in step ` +
    `${newest?.step}${item} of ${newest?.execution_id}`;
  const remedy = "see noetl.dead_letter or GET /api/dead-letters, and the log of those workers";
  return warn("quarantine", found, remedy);
}

/** A server holds the projection's lease and wakes what is due. */
async function checkServers(look: Look, { holders }: CheckpointFacts): Promise<Check> {
  const { database, limits, settings } = look;
  const { open, overdue, overdue_ms } = await readStreams(database, limits.overdueMs);
  const late = `${counted(overdue, "stream")} overdue, by up to ${formatDuration(overdue_ms)}`;
  if (holders.length > 0 && overdue > 0) {
    const remedy = "its reaper does not keep up, or is stuck: look into its log";
    return fail("servers", `${holders.join(", ")} runs, but ${late}`, remedy);
  }
  if (holders.length > 0) {
    return ok("servers", `${holders.join(", ")} runs; ${counted(open, "open stream")}, none late`);
  }
  if (open === 0) return ok("servers", "none runs, and nothing is left to do");
  const found =
    overdue > 0 ? `none runs, and ${late}` : `none runs; ${counted(open, "stream")} open`;
  const remedy = "noetl start goes on with what was left, noetl resume ID with one execution";
  // On a laptop it is usual to leave something for later.
  const judge = overdue > 0 && databaseUrl(settings) !== undefined ? fail : warn;
  return judge("servers", found, remedy);
}

async function checkProjection(look: Look, checkpoint: CheckpointFacts): Promise<Check> {
  const { database, limits } = look;
  const { position, holders, restored } = checkpoint;
  if (!position) return ok("projection", "has not begun: no server has run yet");
  if (restored) {
    const remedy = "start a server: it stamps the log anew and goes on";
    return warn("projection", "this database came from another cluster", remedy);
  }
  const { events, oldest_ms } = await readLag(database, position, limits.countMax);
  const count = events === limits.countMax ? `${events} or more facts` : counted(events, "fact");
  const found = events === 0 ? "has read the whole log" : `${count} behind`;
  if (events === 0 || oldest_ms < limits.lagWarnMs) return ok("projection", found);
  // What a one-shot run leaves unread is read by the next server.
  if (holders.length === 0) return ok("projection", `${found}; no server runs`);
  const long = `${found}, the oldest of ${formatDuration(oldest_ms)} ago`;
  const remedy = "see transactions above, and the log of the server that keeps it";
  const judge = oldest_ms < limits.lagFailMs ? warn : fail;
  return judge("projection", `${long}, kept by ${holders.join(", ")}`, remedy);
}

/** Workers that live and get no work. */
function unreadyOf(alive: SeenWorker[]): Check[] {
  return alive.flatMap(worker => {
    const why = unreadyWhy(worker);
    if (why === undefined) return [];
    const remedy = "see nats, stream and consumer below, and what NATS lets its user do";
    return [fail("workers", `${worker.worker_id} gets no work: ${why}`, remedy)];
  });
}

async function checkWorkers({ database, limits, settings }: Look): Promise<Check[]> {
  const known = await listWorkers(database, limits.workersMax);
  const workers = known.filter(worker => worker.status !== "gone");
  const lost = workers.filter(worker => worker.silent_ms > settings.command.leaseMs);
  const alive = workers.filter(worker => !lost.includes(worker));
  const slots = alive.reduce((sum, { capacity }) => sum + Number(capacity["slots"] ?? 0), 0);
  const silent = lost.map(({ worker_id, silent_ms }) => {
    const found = `${worker_id} has been silent for ${formatDuration(silent_ms)}`;
    return warn("workers", found, "its commands are given to others; look why it ended");
  });
  const unserved = await listUnserved(database, limits.workersMax);
  for (const step of unserved) {
    const remedy = "start a worker with NOETL_WORKER_CAPABILITIES or _LABELS that say so";
    silent.push(warn("workers", unservedLine(step), remedy));
  }
  const { open } = await readStreams(database, limits.overdueMs);
  if (alive.length > 0) {
    const found = ok("workers", `${alive.length} alive, ${counted(slots, "slot")}`);
    return [found, ...unreadyOf(alive), ...silent];
  }
  if (open === 0) return [ok("workers", "none runs, and nothing is left to do"), ...silent];
  const remedy = "noetl start, or noetl worker beside a server";
  return [warn("workers", `none runs for ${counted(open, "open stream")}`, remedy), ...silent];
}
