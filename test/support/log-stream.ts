// The life of every command of one stream, replayed: issued once, claimed in order, ended once.
import { COMMAND_TERMINALS } from "../../schemas/events.ts";
import { fromRanges } from "../../schemas/ranges.ts";
import type { LogEvent } from "./log-checker.ts";

interface CommandLife {
  delivery: number;
  /** The worker that has it now. */
  holder?: string;
  terminal?: string;
}

interface Replay {
  id: string;
  commands: Map<string, CommandLife>;
  /** Iterations by index: issued and accepted, and by which command. */
  issued: Map<number, string>;
  accepted: Map<number, boolean>;
  window: number;
  /** Absent for a loop over a cursor until it is done: its rows are those that came. */
  size?: number;
  /** Slots of a cursor whose last claim gave nothing; absent for other loops. */
  drained?: Set<number>;
  /** Of a fan-out: of each shard that has ended whether it succeeded, and who each one is. */
  shards?: { ended: Map<string, boolean>; names: Map<string, string> };
  /** How many iterations an earlier loop has settled. */
  inherited?: { ok: number; failed: number } | undefined;
  inheritedShards?: { succeeded: number; failed: number } | undefined;
  /** What closed the stream: nothing but acknowledgements may follow. */
  closed?: string;
  cancelled: boolean;
  faults: string[];
}

const TERMINALS: ReadonlySet<string> = new Set(COMMAND_TERMINALS);
const CLOSES = new Set([
  "loop.done",
  "loop.fanin.completed",
  "playbook.completed",
  "playbook.failed",
  "execution.cancelled",
]);
/** Codes of failures that an owner decides itself: nobody holds the command then. */
const OWNERS_OWN = new Set(["WORKER_LOST", "STEP_TIMEOUT", "QUEUE_TIMEOUT"]);

/** What is wrong with one stream's events, in version order. */
export function checkStream(id: string, events: LogEvent[]): string[] {
  const replay: Replay = {
    id,
    commands: new Map(),
    issued: new Map(),
    accepted: new Map(),
    window: Infinity,
    cancelled: false,
    faults: [],
  };
  for (const event of events) step(replay, event);
  if (replay.closed !== undefined) {
    for (const [command, life] of replay.commands) {
      if (!life.terminal) fault(replay, `${command} has no terminal`);
    }
  }
  return replay.faults;
}

function fault(replay: Replay, text: string): void {
  replay.faults.push(`stream ${replay.id}: ${text}`);
}

function step(replay: Replay, event: LogEvent): void {
  const { event_type: type, meta } = event;
  if (type === "execution.redriven") replay.closed = undefined;
  if (replay.closed !== undefined) fault(replay, `${type} after ${replay.closed}`);
  if (type === "loop.fanout.started") replay.shards = { ended: new Map(), names: new Map() };
  if (type === "loop.started" || type === "loop.fanout.started") {
    replay.window = Number(meta["max_in_flight"]);
    if (meta["mode"] === "cursor") replay.drained = new Set();
    else replay.size = Number(meta["collection_size"]);
    replay.inherited = meta["inherited"] as Replay["inherited"];
    replay.inheritedShards = meta["inherited_shards"] as Replay["inheritedShards"];
  } else if (type === "execution.cancel_requested") replay.cancelled = true;
  else if (type === "loop.done") checkStats(replay, event);
  else if (type === "loop.fanin.completed") checkFanin(replay, event);
  else if (/^(command|frame|loop\.shard)\./.test(type)) stepCommand(replay, event);
  if (CLOSES.has(type)) replay.closed = type;
}

function stepCommand(replay: Replay, event: LogEvent): void {
  const { event_type: type, meta } = event;
  const id = String(meta["command_id"]);
  const life = replay.commands.get(id);
  if (type === "command.issued") {
    if (life) fault(replay, `${id} is issued twice`);
    else issue(replay, id, event);
    return;
  }
  if (!life) return fault(replay, `${type} of ${id}, which was never issued`);
  if (life.terminal) return fault(replay, `${type} of ${id} after its ${life.terminal}`);
  if (type === "command.claimed") claim(replay, id, life, event);
  else if (type === "command.expired" || type === "command.released") {
    if (life.holder === undefined) fault(replay, `${type} of ${id}, which nobody holds`);
    life.holder = undefined;
  } else if (type === "frame.committed") commit(replay, id, life, event);
  else if (type === "frame.heartbeat") isHolders(replay, id, life, event);
  else if (TERMINALS.has(type)) terminate(replay, id, life, event);
  else fault(replay, `${type} is no event of a command`);
}

function issue(replay: Replay, id: string, { meta }: LogEvent): void {
  const handed = meta["claim_id"] !== undefined;
  replay.commands.set(
    id,
    handed ? { delivery: 1, holder: String(meta["worker_id"]) } : { delivery: 0 },
  );
  // A stopped loop still runs rows that it has claimed.
  if (replay.cancelled && !replay.drained) fault(replay, `${id} is issued after the cancel`);
  if (replay.drained?.has(Number(meta["slot"]))) fault(replay, `${id} is of a drained slot`);
  for (const index of itemsOf(meta)) {
    const before = replay.issued.get(index);
    if (before !== undefined) fault(replay, `iteration ${index} is issued as ${before} and ${id}`);
    if (replay.size === undefined || index >= replay.size) {
      fault(replay, `iteration ${index} is none of ${replay.size}`);
    }
    replay.issued.set(index, id);
  }
  nameShard(replay, id, meta);
  const open = [...replay.commands.values()].filter(one => !one.terminal).length;
  if (open > replay.window) fault(replay, `${open} commands open, the window is ${replay.window}`);
}

/** A shard has the same name in every attempt, and no other shard has it. */
function nameShard(replay: Replay, id: string, meta: LogEvent["meta"]): void {
  const { shards } = replay;
  if (!shards) return;
  const shard = String(meta["shard_id"]);
  const name = `${String(meta["iter_key"])} of ${itemsOf(meta).join()}`;
  const known = shards.names.get(shard) ?? name;
  if (known !== name) fault(replay, `shard ${shard} is ${known}, and as ${id} it is ${name}`);
  if (meta["shard_attempt"] !== meta["attempt"]) fault(replay, `${id} is of another attempt`);
  if (shards.ended.has(shard)) fault(replay, `${id} is issued after the end of its shard`);
  shards.names.set(shard, name);
}

/** The iterations a command carries. */
function itemsOf({ iter_index, first, count }: LogEvent["meta"]): number[] {
  if (typeof iter_index === "number") return [iter_index];
  if (typeof first !== "number" || typeof count !== "number") return [];
  return Array.from({ length: count }, (_, at) => first + at);
}

function claim(replay: Replay, id: string, life: CommandLife, { meta }: LogEvent): void {
  if (life.holder !== undefined) fault(replay, `${id} is claimed while ${life.holder} has it`);
  if (meta["delivery"] !== life.delivery + 1) {
    fault(replay, `${id}: delivery ${String(meta["delivery"])} after ${life.delivery}`);
  }
  // What ran when a loop was stopped may finish, also at another worker.
  const mayFinish = replay.size !== undefined && life.delivery > 0;
  if (replay.cancelled && !replay.drained && !mayFinish) {
    fault(replay, `${id} is claimed after the cancel`);
  }
  life.delivery += 1;
  life.holder = String(meta["worker_id"]);
}

function terminate(replay: Replay, id: string, life: CommandLife, event: LogEvent): void {
  const { event_type: type, meta, code } = event;
  life.terminal = type;
  if (type === "command.cancelled") return leave(replay, meta);
  // Of a shard that is given up every item may have been told before.
  const isOwners = type !== "command.completed" && OWNERS_OWN.has(code ?? "");
  if (!isOwners && (meta["delivery"] !== life.delivery || meta["worker_id"] !== life.holder)) {
    const from = `${String(meta["worker_id"])}, delivery ${String(meta["delivery"])}`;
    fault(replay, `${id} ended by ${from}; ${life.holder} has delivery ${life.delivery}`);
  }
  if (replay.shards) return endShard(replay, replay.shards, event);
  const index = meta["iter_index"];
  if (typeof index !== "number") return;
  if (replay.accepted.has(index)) fault(replay, `iteration ${index} is accepted twice`);
  replay.accepted.set(index, type === "command.completed");
}

/**
 * Items that the end of a shard's attempt settles: of one that is made again only what succeeded,
 * and the rest comes again.
 */
export function shardItems({ event_type: type, meta }: LogEvent, size = Infinity) {
  const single = String(meta["iter_index"] ?? "");
  const ok = String(meta["ok"] ?? (type === "loop.shard.done" ? single : ""));
  const failed = type === "loop.shard.failed" ? String(meta["failed"] ?? single) : "";
  return { ok: fromRanges(ok, 0, size) ?? [], failed: fromRanges(failed, 0, size) ?? [] };
}

function endShard(replay: Replay, { ended }: NonNullable<Replay["shards"]>, event: LogEvent): void {
  const { event_type: type, meta } = event;
  const isDone = type === "loop.shard.done";
  const { ok, failed } = shardItems(event, replay.size);
  for (const [items, isOk] of [
    [ok, true],
    [failed, false],
  ] as const) {
    for (const index of items) {
      if (replay.accepted.has(index)) fault(replay, `iteration ${index} is accepted twice`);
      replay.accepted.set(index, isOk);
    }
  }
  const shard = String(meta["shard_id"]);
  if (type === "command.failed") {
    if (typeof meta["retry_at"] !== "number") fault(replay, `shard ${shard} has no next attempt`);
    for (const index of itemsOf(meta)) replay.issued.delete(index);
  } else if (ended.has(shard)) fault(replay, `shard ${shard} ends twice`);
  else ended.set(shard, isDone);
}

/** The fan-in counts every shard once, however often it was tried. */
function checkFanin(replay: Replay, event: LogEvent): void {
  checkStats(replay, event);
  const { meta } = event;
  const outcomes = [...(replay.shards?.ended.values() ?? [])];
  const own = outcomes.filter(Boolean).length;
  const before = replay.inheritedShards;
  const succeeded = own + (before?.succeeded ?? 0);
  const failed = outcomes.length - own + (before?.failed ?? 0);
  for (const [name, value] of Object.entries({ succeeded, done: succeeded, failed })) {
    if (meta[name] !== value)
      fault(replay, `the fan-in says ${String(meta[name])} ${name}, not ${value}`);
  }
  if (meta["status"] === "complete" && succeeded !== meta["total"]) {
    fault(replay, `complete with ${succeeded} of ${String(meta["total"])} shards`);
  }
}

/** Items of a frame that is over, and were not settled, may be issued again. */
function leave(replay: Replay, meta: LogEvent["meta"]): void {
  if (typeof meta["first"] !== "number") return;
  for (const index of itemsOf(meta)) if (!replay.accepted.has(index)) replay.issued.delete(index);
}

function isHolders(replay: Replay, id: string, life: CommandLife, { meta }: LogEvent): void {
  if (meta["delivery"] === life.delivery && meta["worker_id"] === life.holder) return;
  fault(replay, `${id} is committed by ${String(meta["worker_id"])}`);
}

function commit(replay: Replay, id: string, life: CommandLife, event: LogEvent): void {
  const { meta } = event;
  isHolders(replay, id, life, event);
  if (replay.drained) commitRows(replay, id, meta);
  const first = Number(meta["first"]);
  const end = first + Number(meta["count"]);
  for (const name of ["ok", "failed"] as const) {
    const items = fromRanges(String(meta[name]), first, end);
    if (!items) fault(replay, `${id} commits items that are not its own`);
    for (const index of items ?? []) {
      if (replay.accepted.has(index)) fault(replay, `iteration ${index} is accepted twice`);
      replay.accepted.set(index, name === "ok");
    }
  }
  if (meta["final"] !== true) return;
  life.terminal = "frame.committed";
  leave(replay, meta);
}

/** Rows of a cursor get the next indexes, none left out; a slot is drained once. */
function commitRows(replay: Replay, id: string, meta: LogEvent["meta"]): void {
  if (meta["first"] !== replay.accepted.size) {
    fault(replay, `${id} begins at ${String(meta["first"])}, not at ${replay.accepted.size}`);
  }
  const rows = [meta["ok"], meta["failed"]].flatMap(set => fromRanges(String(set), 0, Infinity)!);
  if (rows.length !== meta["count"]) fault(replay, `${id} counts ${String(meta["count"])} rows`);
  if (meta["drained"] === true) replay.drained?.add(Number(meta["slot"]));
}

/** Every index is exactly one of succeeded, failed and not run (design §4.6). */
function checkStats(replay: Replay, { meta }: LogEvent): void {
  const outcomes = [...replay.accepted.values()];
  const own = outcomes.filter(Boolean).length;
  const { inherited } = replay;
  const success = own + (inherited?.ok ?? 0);
  const failed = outcomes.length - own + (inherited?.failed ?? 0);
  const total = replay.drained ? outcomes.length : (replay.size ?? 0);
  const counted = { total, success, failed, not_run: total - success - failed };
  const said = meta["stats"] as Record<string, number>;
  for (const [name, value] of Object.entries(counted)) {
    if (said[name] !== value) fault(replay, `its end says ${said[name]} ${name}, not ${value}`);
  }
  if (meta["status"] === "ok" && counted.not_run > 0) fault(replay, "ok with iterations not run");
  if (replay.drained && meta["status"] === "ok" && replay.drained.size !== replay.window) {
    fault(replay, `ok with ${replay.drained.size} of ${replay.window} slots drained`);
  }
}
