/**
 * Ids: 64-bit snowflakes for streams and events, derived names for commands. Strings everywhere in
 * JSON.
 */

/** 2024-01-01T00:00:00Z, the zero of our snowflakes. */
export const EPOCH_MS = 1_704_067_200_000;
const NODE_BITS = 10n;
const SEQUENCE_BITS = 12n;
const SEQUENCE_MAX = (1n << SEQUENCE_BITS) - 1n;

export interface IdSource {
  /** A fresh snowflake, greater than every one this source gave before. */
  next(): string;
}

/**
 * Snowflakes of one process: 41 bits of milliseconds since 2024, 10 bits of node number, 12 bits of
 * sequence. When the clock stands still or steps back, the last millisecond is used up and then
 * borrowed from the future, so ids of one source never repeat and never go down.
 */
export function createIds(node: number, now: () => number): IdSource {
  const nodeBits = BigInt(node & 1023) << SEQUENCE_BITS;
  let lastMs = 0n;
  let sequence = 0n;
  return {
    next() {
      const ms = BigInt(Math.max(0, Math.floor(now()) - EPOCH_MS));
      if (ms > lastMs) {
        lastMs = ms;
        sequence = 0n;
      } else if (sequence < SEQUENCE_MAX) {
        sequence += 1n;
      } else {
        lastMs += 1n;
        sequence = 0n;
      }
      return ((lastMs << (NODE_BITS + SEQUENCE_BITS)) | nodeBits | sequence).toString();
    },
  };
}

/** Milliseconds since 1970 at which a snowflake was made. */
export function timeOfId(id: string): number {
  return Number(BigInt(id) >> (NODE_BITS + SEQUENCE_BITS)) + EPOCH_MS;
}

/** The smallest id that can be made at or after `ms`: the bounds of event partitions. */
export function idAtTime(ms: number): string {
  return (BigInt(Math.max(0, Math.floor(ms) - EPOCH_MS)) << (NODE_BITS + SEQUENCE_BITS)).toString();
}

/** true for a decimal 64-bit id as our API takes it. */
export function isId(text: unknown): text is string {
  return typeof text === "string" && /^[1-9][0-9]{0,18}$/.test(text);
}

/**
 * What a command is, as its derived id says it: never random, so that a second issue is the same
 * command.
 */
export interface CommandName {
  execution_id: string;
  step: string;
  activation: number;
  iter_index?: number;
  /** Several iterations of one command: the first one, and how many. */
  frame?: { first: number; count: number };
  /** Of a cursor loop: the how manieth claim of which slot. */
  cursor?: CursorRound;
  attempt: number;
}

export interface CursorRound {
  /** From 0. */
  slot: number;
  /** From 1. */
  round: number;
}

/**
 * `{execution_id}:{step}:{activation}[:{iter_index} | :f{first}-{count} | :c{slot}-{round}]:
 * {attempt}`, the step percent-encoded (design §4.4).
 */
export function commandId(name: CommandName): string {
  const parts: (string | number)[] = [
    name.execution_id,
    encodeURIComponent(name.step.toWellFormed()),
    name.activation,
  ];
  if (name.iter_index !== undefined) parts.push(name.iter_index);
  if (name.frame) parts.push(`f${name.frame.first}-${name.frame.count}`);
  if (name.cursor) parts.push(`c${name.cursor.slot}-${name.cursor.round}`);
  parts.push(name.attempt);
  return parts.join(":");
}

/** The parts of a command id, or undefined when it is not one. */
export function parseCommandId(id: string): CommandName | undefined {
  const parts = id.split(":");
  if (parts.length !== 4 && parts.length !== 5) return undefined;
  const [executionId, step, ...rest] = parts;
  const stepName = decoded(step ?? "");
  if (!isId(executionId) || !stepName) return undefined;
  const several = rest.length === 3 ? severalOf(rest[1] ?? "") : undefined;
  if (several) rest.splice(1, 1);
  if (!rest.every(part => /^[0-9]{1,10}$/.test(part))) return undefined;
  const numbers = rest.map(Number);
  const [activation, second, third] = numbers as [number, number, number | undefined];
  const name = { execution_id: executionId, step: stepName, activation, ...several };
  return third === undefined
    ? { ...name, attempt: second }
    : { ...name, iter_index: second, attempt: third };
}

function severalOf(text: string): Pick<CommandName, "frame" | "cursor"> | undefined {
  const [, letter, ...digits] = /^([fc])([0-9]{1,10})-([0-9]{1,10})$/.exec(text) ?? [];
  const [one, two] = digits.map(Number) as [number, number];
  if (letter === "f") return { frame: { first: one, count: two } };
  return letter === "c" ? { cursor: { slot: one, round: two } } : undefined;
}

/** Percent-encoded text as it was; undefined when it is not percent-encoded text. */
function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
