/**
 * Rate limits in words: what is limited (`http:host:api.example.com`), how fast (`200/s burst 5`),
 * and which limits a call meets. Pure.
 */
import { isObject } from "./json.ts";
import { KNOWN_KINDS } from "./tool.ts";

/** Calls a second, and how many may come at once after a silence. */
export interface Rate {
  per_second: number;
  burst: number;
}

/** What of a call tells its buckets apart: a host, a credential's alias, an action. */
export type RateLabels = Record<string, string>;

/** A limit in force; `rate: null` exempts what its target names from wider ones. */
export interface Limit {
  target: string;
  rate: Rate | null;
}

/** One bucket that a call takes a token of. */
export interface BucketUse {
  bucket: string;
  rate: Rate;
}

/** What a task asks for itself: `spec.rate_limit`. */
export interface TaskLimit {
  rate: Rate;
  /** `task`: this task of this playbook, in all executions; else a label of the call. */
  per: string | undefined;
}

export const RATE_EXPECTED = "a rate such as 200/s, 100/m, 5000/h, or 200/s burst 20";
export const TASK_LIMIT_EXPECTED = "200/s, or {rate: 200/s, burst: 20, per: host}";
export const TARGET_EXPECTED = "tool, tool:host:NAME, tool:credential:ALIAS; * for each of them";
/** Keys of `spec.rate_limit` as a map. */
const TASK_FIELDS = ["rate", "burst", "per"];
export const TASK_PER = ["host", "credential", "action", "task"];

export const TARGET_MAX_CHARS = 300;
const PER_SECOND_MAX = 1e6;
const BURST_MAX = 1e6;
const RATE = /^(\d+(?:\.\d+)?)\s*(?:\/\s*([a-z]+))?(?:\s+burst\s+(\d+))?$/;
const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const LONG_UNITS: Record<string, string> = {
  ...{ sec: "s", second: "s", min: "m", minute: "m" },
  ...{ hour: "h", day: "d" },
};
const TARGET = /^([a-z_]+)(?::(host|credential|action):(\S+))?$/;

/**
 * `200/s`, `100/m burst 5`; a bare number is a second's. Without `burst` as many as 20 ms hold, one
 * at least: enough to make up for a late timer, and no burst that an upstream would notice.
 */
export function parseRate(value: unknown, burst?: unknown): Rate | undefined {
  const parts = RATE.exec(String(value).trim().toLowerCase());
  if (!parts || (typeof value !== "string" && typeof value !== "number")) return undefined;
  const unit = parts[2] ?? "s";
  const seconds = UNIT_SECONDS[LONG_UNITS[unit] ?? unit];
  if (seconds === undefined) return undefined;
  const per_second = Number(parts[1]) / seconds;
  const given = burst ?? parts[3];
  const size = given === undefined ? Math.max(1, Math.floor(per_second / 50)) : Number(given);
  const isGood = per_second > 0 && per_second <= PER_SECOND_MAX;
  if (!isGood || !Number.isInteger(size) || size < 1 || size > BURST_MAX) return undefined;
  return { per_second, burst: size };
}

/** As `parseRate` reads it. */
export function showRate(rate: Rate | null): string {
  if (rate === null) return "none";
  const { per_second, burst } = rate;
  const unit = ["s", "m", "h"].find(one => isShort(per_second * (UNIT_SECONDS[one] ?? 1))) ?? "d";
  const count = Number((per_second * (UNIT_SECONDS[unit] ?? 1)).toPrecision(10));
  return `${count}/${unit} burst ${burst}`;
}

function isShort(count: number): boolean {
  return count >= 1 && Math.abs(count - Math.round(count)) < 1e-6;
}

/** The target as it is kept, or undefined when it names no tool or no key of ours. */
export function parseTarget(text: string): string | undefined {
  const trimmed = text.trim();
  const parts = TARGET.exec(trimmed);
  if (!parts || trimmed.length > TARGET_MAX_CHARS) return undefined;
  const [, tool = "", key, value = ""] = parts;
  if (!(KNOWN_KINDS as readonly string[]).includes(tool)) return undefined;
  if (key === undefined) return tool;
  const kept = key === "host" ? value.toLowerCase() : value;
  // A star stands for all, or for the subdomains of a host.
  if (kept.slice(1).includes("*") || (/^\*./.test(kept) && !kept.startsWith("*.")))
    return undefined;
  return `${tool}:${key}:${kept}`;
}

/**
 * `spec.rate_limit` of a task: a rate, or `{rate, burst?, per?}`. A text says what is wrong.
 */
export function readTaskLimit(value: unknown): TaskLimit | string {
  const fields = isObject(value) ? value : { rate: value };
  const unknown = Object.keys(fields).find(key => !TASK_FIELDS.includes(key));
  if (unknown !== undefined) return `'${unknown}' is unknown; ${TASK_FIELDS.join(", ")}`;
  const { per } = fields;
  if (per !== undefined && !TASK_PER.includes(String(per))) {
    return `per: one of ${TASK_PER.join(", ")}`;
  }
  const rate = parseRate(fields["rate"], fields["burst"]);
  return rate ? { rate, per: per as string | undefined } : "it is no rate";
}

/** The limits of a process by target, ready to be asked call by call. */
export class LimitBook {
  readonly #limits: ReadonlyMap<string, Rate | null>;

  /** Of limits with the same target the last counts. */
  constructor(limits: readonly Limit[]) {
    this.#limits = new Map(limits.map(({ target, rate }) => [target, rate]));
  }

  list(): Limit[] {
    return [...this.#limits].map(([target, rate]) => ({ target, rate }));
  }

  /**
   * The buckets a call of a tool takes tokens of: the whole tool's, and of each label the one that
   * names it most closely. A star gives each host, credential or action a bucket of its own.
   */
  of(tool: string, labels: RateLabels): BucketUse[] {
    if (this.#limits.size === 0) return [];
    const whole = this.#limits.get(tool);
    const found: BucketUse[] = whole ? [{ bucket: tool, rate: whole }] : [];
    for (const [key, value] of Object.entries(labels)) {
      const rate = this.#closest(`${tool}:${key}`, value);
      if (rate) found.push({ bucket: bucketOf(tool, key, value), rate });
    }
    return found;
  }

  #closest(prefix: string, value: string): Rate | null | undefined {
    for (const pattern of patternsOf(value)) {
      const rate = this.#limits.get(`${prefix}:${pattern}`);
      if (rate !== undefined) return rate;
    }
    return undefined;
  }
}

/** `a.b.c`, `*.b.c`, `*.c`, `*`: the closest first. */
function patternsOf(value: string): string[] {
  const parts = value.split(".");
  const wider = parts.slice(1).map((_, place) => `*.${parts.slice(place + 1).join(".")}`);
  return [value, ...wider, "*"];
}

/** The bucket of one host, credential or action. */
export function bucketOf(tool: string, key: string, value: string): string {
  return `${tool}:${key}:${value}`.slice(0, TARGET_MAX_CHARS);
}

/**
 * A task's own limit beside those in force: on a bucket that is limited already the slower rate
 * counts, so that no playbook can go faster than its operator allows.
 */
export function withTaskLimit(uses: readonly BucketUse[], own: BucketUse): BucketUse[] {
  const others = uses.filter(({ bucket }) => bucket !== own.bucket);
  const same = uses.find(({ bucket }) => bucket === own.bucket);
  if (!same) return [...others, own];
  return [...others, same.rate.per_second <= own.rate.per_second ? same : own];
}
