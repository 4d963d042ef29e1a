/** What the `meta` of several facts have in common (`events.ts`). */
import { z } from "zod";

/** How an activation of a step ends: the arcs taken, in file order. */
export const routing = {
  next: z.array(z.string()).optional(),
  /** The step failed (also when its command succeeded and a guard threw). */
  step_status: z.enum(["ok", "failed", "cancelled"]).optional(),
  /** The failure found an error arc, or its step is best_effort. */
  handled: z.enum(["arc", "best_effort"]).optional(),
};
export const ofStep = { step: z.string(), activation: z.number() };
export const ofCommand = { ...ofStep, command_id: z.string(), attempt: z.number() };
/** Of a command that carries several iterations: the first one, and how many. */
export const ofFrame = { first: z.number().optional(), count: z.number().optional() };
/** Of a command of a cursor loop: which claim of which slot. */
export const ofSlot = { slot: z.number().optional(), round: z.number().optional() };
/** Of a shard: which one, what it is of in every attempt and redrive, and which attempt this is. */
export const ofShard = {
  shard_id: z.string().optional(),
  iter_key: z.string().optional(),
  shard_attempt: z.number().optional(),
};
export const ofLoop = {
  loop_id: z.string().optional(),
  iter_index: z.number().optional(),
  ...ofSlot,
};
/** `schemas/loop-digest.ts`: of the items that this fact accepts, or of all items of a loop. */
export const digest = { digest: z.string().optional() };
/** Of a shard of several items: those that this fact says succeeded, and failed, as ranges. */
export const sets = { ok: z.string().optional(), failed: z.string().optional() };
export const delivery = { delivery: z.number(), worker_id: z.string() };
export const claim = { ...delivery, incarnation: z.string(), claim_id: z.string() };
/** `assigned`: the worker has not asked for it, and is told until it has taken it. */
export const firstClaim = { ...z.object(claim).partial().shape, assigned: z.boolean().optional() };
export const stats = z.object({
  total: z.number(),
  success: z.number(),
  failed: z.number(),
  not_run: z.number(),
});
/** What an earlier loop has settled for this one. */
export const inherited = z.object({ ok: z.number(), failed: z.number() });
export const generation = { generation: z.number() };
/** Which pause of the execution, from 1. */
export const pause = { pause: z.number().optional() };

export const shardEnd = {
  ...ofCommand,
  ...ofLoop,
  ...ofShard,
  ...ofFrame,
  loop_id: z.string(),
  shard_id: z.string(),
  ...sets,
  ...delivery,
  ...digest,
};
