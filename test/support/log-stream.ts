// The life of every command of one stream, replayed: issued once, claimed in order, ended once.
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
  size?: number;
  /** What closed the stream: nothing but acknowledgements may follow. */
  closed?: string;
  cancelled: boolean;
  faults: string[];
}

const TERMINALS = new Set(["command.completed", "command.failed", "command.cancelled"]);
const CLOSES = new Set([
  "loop.done",
  "playbook.completed",
  "playbook.failed",
  "execution.cancelled",
]);
/** Codes of failures that an owner decides itself: nobody holds the command then. */
const OWNERS_OWN = new Set(["WORKER_LOST", "STEP_TIMEOUT"]);

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
  if (replay.closed !== undefined && type !== "execution.redriven") {
    fault(replay, `${type} after ${replay.closed}`);
  }
  if (type === "loop.started") {
    replay.window = Number(meta["max_in_flight"]);
    replay.size = Number(meta["collection_size"]);
  } else if (type === "execution.cancel_requested") replay.cancelled = true;
  else if (type === "loop.done") checkStats(replay, event);
  else if (type.startsWith("command.")) stepCommand(replay, event);
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
  } else if (TERMINALS.has(type)) terminate(replay, id, life, event);
  else fault(replay, `${type} is no event of a command`);
}

function issue(replay: Replay, id: string, { meta }: LogEvent): void {
  replay.commands.set(id, { delivery: 0 });
  if (replay.cancelled) fault(replay, `${id} is issued after the cancel`);
  const index = meta["iter_index"];
  if (typeof index === "number") {
    const before = replay.issued.get(index);
    if (before !== undefined) fault(replay, `iteration ${index} is issued as ${before} and ${id}`);
    if (replay.size === undefined || index >= replay.size) {
      fault(replay, `iteration ${index} is none of ${replay.size}`);
    }
    replay.issued.set(index, id);
  }
  const open = [...replay.commands.values()].filter(one => !one.terminal).length;
  if (open > replay.window) fault(replay, `${open} commands open, the window is ${replay.window}`);
}

function claim(replay: Replay, id: string, life: CommandLife, { meta }: LogEvent): void {
  if (life.holder !== undefined) fault(replay, `${id} is claimed while ${life.holder} has it`);
  if (meta["delivery"] !== life.delivery + 1) {
    fault(replay, `${id}: delivery ${String(meta["delivery"])} after ${life.delivery}`);
  }
  if (replay.cancelled) fault(replay, `${id} is claimed after the cancel`);
  life.delivery += 1;
  life.holder = String(meta["worker_id"]);
}

function terminate(replay: Replay, id: string, life: CommandLife, event: LogEvent): void {
  const { event_type: type, meta, code } = event;
  life.terminal = type;
  if (type === "command.cancelled") return;
  const isOwners = type === "command.failed" && OWNERS_OWN.has(code ?? "");
  if (!isOwners && (meta["delivery"] !== life.delivery || meta["worker_id"] !== life.holder)) {
    const from = `${String(meta["worker_id"])}, delivery ${String(meta["delivery"])}`;
    fault(replay, `${id} ended by ${from}; ${life.holder} has delivery ${life.delivery}`);
  }
  const index = meta["iter_index"];
  if (typeof index !== "number") return;
  if (replay.accepted.has(index)) fault(replay, `iteration ${index} is accepted twice`);
  replay.accepted.set(index, type === "command.completed");
}

/** Every index is exactly one of succeeded, failed and not run (design §4.6). */
function checkStats(replay: Replay, { meta }: LogEvent): void {
  const outcomes = [...replay.accepted.values()];
  const success = outcomes.filter(Boolean).length;
  const failed = outcomes.length - success;
  const total = replay.size ?? 0;
  const counted = { total, success, failed, not_run: total - success - failed };
  const said = meta["stats"] as Record<string, number>;
  for (const [name, value] of Object.entries(counted)) {
    if (said[name] !== value) fault(replay, `loop.done says ${said[name]} ${name}, not ${value}`);
  }
  if (meta["status"] === "ok" && counted.not_run > 0) fault(replay, "ok with iterations not run");
}
