/** The opening of a fan-out: how a collection becomes shards, and what happens when some fail. */
import { durationMs } from "./duration.ts";
import { LoopError, mayFailOf, wholeNumber } from "./loop-numbers.ts";
import type { Loop } from "./model.ts";
import { renderValue } from "./render.ts";
import type { Scope } from "./template-values.ts";

/** What a fan-out goes by. Times are milliseconds. */
export interface FanoutPlan {
  /** Items of a shard; the last one may have fewer. */
  batch: number;
  /** Shards: `ceil(items / batch)`. */
  shards: number;
  /** Attempts of a shard after its first. */
  max_retries: number;
  /** The first shard that fails for good ends the issue of others. */
  fail_fast: boolean;
  /** Failed shards beside others that succeeded do not fail the step. */
  allow_partial: boolean;
  /** Items that may fail; absent: all. What is beyond ends the issue, and fails the step. */
  tolerated?: number;
  /** How long the worker of a shard may be silent, when that is longer than for other commands. */
  lease_ms?: number;
}

/** Shards that are open at once when nothing says how many: they are any worker's. */
const WINDOW_DEFAULT = 100;
/** Items of one shard at most: all of them are told, and die, together. */
const BATCH_MAX = 1_000;
const RETRIES_DEFAULT = 2;

/** Of a fan-out that could not be opened. */
export const NO_SHARDS: FanoutPlan = {
  ...{ batch: 1, shards: 0, max_retries: 0, fail_fast: false, allow_partial: false },
};

export interface FanoutSize {
  window: number;
  fanout: FanoutPlan;
  /** A shard that waits longer for a worker has failed in this attempt. */
  queue_ms?: number | undefined;
}

/** Throws LoopError and TemplateError for what cannot be a limit. */
export function planFanout(
  loop: Loop,
  templates: Scope,
  limits: { size: number; windowMax: number },
): FanoutSize {
  const fields = loop.fanout ?? {};
  const count = (name: string): number | undefined => {
    const rendered = renderValue(fields[name] ?? null, templates, "typed");
    return rendered === null ? undefined : wholeNumber(`spec.fanout.${name}`, rendered);
  };
  const batch = count("batch") ?? 1;
  if (batch > BATCH_MAX) {
    throw new LoopError(`spec.fanout.batch gave ${batch}, expected at most ${BATCH_MAX}`);
  }
  const shards = Math.ceil(limits.size / batch);
  const most = count("max_shards") ?? Infinity;
  if (shards > most) {
    const message = `loop.in gave ${limits.size} items, which are ${shards} shards`;
    throw new LoopError(`${message}; spec.fanout.max_shards allows ${most}`);
  }
  const asked = [count("max_in_flight"), count("max_concurrent_shards")];
  const told = asked.filter(one => one !== undefined);
  const window = told.length > 0 ? Math.min(...told) : (ofLoop(loop, templates) ?? WINDOW_DEFAULT);
  const [queue_ms, lease_ms] = [fields["queue_ttl"], fields["lease_timeout"]].map(durationMs);
  const retries = fields["max_shard_retries"] ?? RETRIES_DEFAULT;
  return {
    window: Math.min(window, limits.windowMax),
    queue_ms,
    fanout: {
      ...{ batch, shards, max_retries: Number(retries) },
      fail_fast: fields["fail_fast"] === true,
      allow_partial: fields["allow_partial"] !== false,
      ...toleratedOf(loop, limits.size),
      ...(lease_ms !== undefined && { lease_ms }),
    },
  };
}

function ofLoop({ maxInFlight }: Loop, templates: Scope): number | undefined {
  if (maxInFlight === undefined) return undefined;
  const field = "loop.spec.max_in_flight";
  return wholeNumber(field, renderValue(maxInFlight, templates, "typed"));
}

function toleratedOf(loop: Loop, size: number): Pick<FanoutPlan, "tolerated"> {
  const { toleratedFailureCount: count, toleratedFailurePercent: percent } = loop;
  if (count === undefined && percent === undefined) return {};
  return { tolerated: mayFailOf(size, { count, percent }) };
}
