// The state of a fan-out: its plan, the shards that are open or wait to be tried again, and of what
// is over only one bit an item.
import { Bitmap } from "../../schemas/bitmap.ts";
import type { Command } from "../../schemas/command.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import type { BegunLoop, LoopIdentity } from "../../schemas/loop-begun.ts";
import { digestText, parseDigest } from "../../schemas/loop-digest.ts";
import type { LoopReport } from "../../schemas/loop-report.ts";
import type { Throttle } from "../../schemas/retry-budget.ts";
import { NO_SHARDS, type FanoutPlan } from "../../schemas/playbook/fanout-plan.ts";

/** The command of a shard's attempt. */
export interface Shard extends Command {
  /** From 0, in input order. */
  shard: number;
}

/** A shard whose last attempt has failed. */
export interface Retry {
  shard: number;
  /** The one to make. */
  attempt: number;
  retry_at: number;
}

interface Progress extends BegunLoop {
  /** The next shard to issue; those below it are open, waiting or over. */
  next: number;
  /** By the id of their command. */
  open: Map<string, Shard>;
  /** By shard. */
  retries: Map<number, Retry>;
  /** Shards that are over, by their last terminal. */
  succeeded: number;
  lost: number;
  /** Of the items accepted so far. */
  digest?: bigint;
  firstError?: OutcomeResult["error"];
  /** Only with a retry budget. */
  throttle?: Throttle;
  /** Why nothing more is issued, when the execution asked for it: what runs may finish. */
  stopReason?: string;
}

export type FanoutState =
  | { status: "none" }
  | ({ status: "running" } & Progress)
  | ({ status: "done" } & LoopIdentity & { report: LoopReport });

export type Running = Extract<FanoutState, { status: "running" }>;

export function limitsOf({ plan }: Pick<Running, "plan">): FanoutPlan {
  return plan.fanout ?? NO_SHARDS;
}

/** The items of a shard: from the first, so many. */
export function itemsOf(shard: number, { plan }: Pick<Running, "plan">) {
  const { batch } = limitsOf({ plan });
  const first = shard * batch;
  return { first, count: Math.min(batch, plan.size - first) };
}

/** Those of a shard's items that are not settled yet. */
export function leftOf(shard: number, state: Running): number[] {
  const { first, count } = itemsOf(shard, state);
  const left: number[] = [];
  for (let index = first; index < first + count; index += 1) {
    if (!state.done.has(index) && !state.failed.has(index)) left.push(index);
  }
  return left;
}

/** A copy whose containers can be changed; shards are copied: claims change them in place. */
export function fork(state: FanoutState): FanoutState {
  if (state.status !== "running") return state;
  const open = new Map<string, Shard>();
  for (const [id, shard] of state.open) open.set(id, { ...shard });
  const { done, failed, retries } = state;
  return { ...state, open, retries: new Map(retries), done: done.copy(), failed: failed.copy() };
}

export function freeze(state: FanoutState): Json {
  if (state.status !== "running") return state as unknown as Json;
  const { open, retries, done, failed, digest, ...rest } = state;
  return {
    ...(rest as unknown as JsonObject),
    open: [...open.values()] as unknown as Json,
    retries: [...retries.values()] as unknown as Json,
    done: done.toText(),
    failed: failed.toText(),
    ...(digest !== undefined && { digest: digestText(digest) }),
  };
}

/** What of a running fan-out is not JSON as it is. */
interface FrozenFanout {
  open: Shard[];
  retries: Retry[];
  done: string;
  failed: string;
  digest?: string;
}

export function thaw(frozen: Json): FanoutState {
  const kept = frozen as unknown as FanoutState;
  if (kept.status !== "running") return kept;
  const raw = frozen as unknown as FrozenFanout;
  return {
    ...kept,
    open: new Map(raw.open.map(shard => [shard.command_id, shard])),
    retries: new Map(raw.retries.map(retry => [retry.shard, retry])),
    done: Bitmap.fromText(raw.done),
    failed: Bitmap.fromText(raw.failed),
    digest: parseDigest(raw.digest),
  };
}
