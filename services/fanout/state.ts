// The state of a fan-out: its plan, the shards that are open or wait to be tried again, and of what
// is over only one bit an item.
import type { Command } from "../../schemas/command.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { Json } from "../../schemas/json.ts";
import type { BegunLoop } from "../../schemas/loop-begun.ts";
import { copied, fromKept, toKept } from "../../schemas/loop-kept.ts";
import type { LoopLife } from "../../schemas/loop-turns.ts";
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

export type FanoutState = LoopLife<Progress>;

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

/** A copy whose containers can be changed. */
export function fork(state: FanoutState): FanoutState {
  if (state.status !== "running") return state;
  return { ...state, ...copied(state), retries: new Map(state.retries) };
}

export function freeze(state: FanoutState): Json {
  if (state.status !== "running") return state as unknown as Json;
  return { ...toKept(state), retries: [...state.retries.values()] as unknown as Json };
}

export function thaw(frozen: Json): FanoutState {
  const kept = frozen as unknown as FanoutState;
  if (kept.status !== "running") return kept;
  const { retries } = frozen as unknown as { retries: Retry[] };
  const known = new Map(retries.map(retry => [retry.shard, retry]));
  return { ...kept, ...fromKept<Shard>(frozen), retries: known };
}
