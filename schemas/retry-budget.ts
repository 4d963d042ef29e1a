/**
 * The retry budget of work that is many commands: a failure that may pass gives its command back
 * instead of failing it, as long as there is budget. Then all is parked: nothing starts but one
 * probe from time to time, until something is answered, and from there on as much runs at once as
 * answers allow. So an outage costs what runs when it begins, and a probe every few seconds.
 *
 * Pure, for any machine that holds commands; all of it follows from recorded facts.
 */

export interface Throttle {
  /** Commands given back so far: each was one try more than it has commands. */
  spent: number;
  /** Commands that may be held at once. */
  width: number;
  /** Failures of probes since the last answer: they come less and less often. */
  failures: number;
  /** It is parked, and the next probe may start at this time; milliseconds since 1970. */
  next_try_at?: number;
  /** Commands that may start although it is parked. */
  probes: string[];
}

/** As much as this, and no more, may wait between two probes: what is back is noticed soon. */
const PAUSE_MS = 500;
const PAUSE_MS_MAX = 3_000;
/** Upstreams may ask for a longer pause, but not for any. */
const ASKED_MS_MAX = 300_000;

export function openThrottle(window: number): Throttle {
  return { spent: 0, width: window, failures: 0, probes: [] };
}

/** When the next probe may start, after a failure now. */
export function nextTryAt(
  throttle: Throttle,
  failed: { command_id: string; now: number; retry_after_ms?: number | undefined },
): number {
  const { now, retry_after_ms = 0 } = failed;
  const asked = now + Math.min(retry_after_ms, ASKED_MS_MAX);
  const { failures, next_try_at } = throttle;
  // What was running when it was parked tells nothing new.
  if (next_try_at !== undefined && !throttle.probes.includes(failed.command_id)) {
    return Math.max(next_try_at, asked);
  }
  return Math.max(now + pauseMs(failures), asked);
}

/** When the next one may start if a probe that starts now is not answered. */
export function nextProbeAt({ failures }: Throttle, now: number): number {
  return now + pauseMs(failures + 1);
}

function pauseMs(failures: number): number {
  return Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** Math.min(failures, 10));
}

/** A command was given back; `next_try_at` as `nextTryAt` said then. */
export function gaveBack(
  throttle: Throttle,
  { command_id, spent, next_try_at }: { command_id: string; spent: number; next_try_at: number },
): Throttle {
  const wasProbe = throttle.probes.includes(command_id);
  return {
    spent,
    width: Math.max(1, Math.floor(throttle.width / 2)),
    failures: throttle.failures + (wasProbe ? 1 : 0),
    next_try_at,
    probes: throttle.probes.filter(id => id !== command_id),
  };
}

/** A probe may start. */
export function probed(throttle: Throttle, command_id: string, next_try_at: number): Throttle {
  return { ...throttle, next_try_at, probes: [...throttle.probes, command_id] };
}

/** Something was answered, well or badly: what is called is there. `held` is what still runs. */
export function answered(throttle: Throttle, window: number, held: number): Throttle {
  const width = Math.min(window, Math.max(throttle.width, held) + 1);
  return { spent: throttle.spent, width, failures: 0, probes: [] };
}

/** Whether nothing is held back. */
export function isOpen({ next_try_at, width }: Throttle, window: number): boolean {
  return next_try_at === undefined && width >= window;
}

interface Waiting {
  command_id: string;
  holder?: unknown;
}

/** Of these commands, in their order, those that nobody holds and that may start now. */
export function startable<One extends Waiting>(
  throttle: Throttle,
  commands: Iterable<One>,
  window: number,
): One[] {
  const all = [...commands];
  const waiting = all.filter(({ holder }) => !holder);
  const { next_try_at, probes, width } = throttle;
  if (next_try_at !== undefined) {
    return waiting.filter(({ command_id }) => probes.includes(command_id));
  }
  if (width >= window) return waiting;
  return waiting.slice(0, Math.max(0, width - (all.length - waiting.length)));
}

/** Whether a command that nobody holds may start now: rings of before may still be on their way. */
export function mayStart<One extends Waiting>(
  throttle: Throttle,
  command: One,
  commands: Iterable<One>,
  window: number,
): boolean {
  const { next_try_at, probes, width } = throttle;
  if (next_try_at !== undefined) return probes.includes(command.command_id);
  if (width >= window) return true;
  let held = 0;
  for (const { holder } of commands) held += holder ? 1 : 0;
  return held < width;
}

/** The next command to probe with; undefined while none waits that is no probe yet. */
export function nextProbe<One extends Waiting>(
  { probes, next_try_at }: Throttle,
  commands: Iterable<One>,
): One | undefined {
  if (next_try_at === undefined) return undefined;
  for (const command of commands) {
    if (!command.holder && !probes.includes(command.command_id)) return command;
  }
  return undefined;
}
