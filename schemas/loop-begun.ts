/**
 * The first fact of a loop or a fan-out, and what it makes known of it: who it is, its plan, its
 * frozen collection and scope, and what an earlier one has settled for it.
 */
import { Bitmap } from "./bitmap.ts";
import type { EventOf, ResultReference } from "./events.ts";
import type { FrozenScope, PlaybookPin } from "./frozen-scope.ts";
import type { Json, JsonObject } from "./json.ts";
import type { Besides, Pausable } from "./loop-pause.ts";
import type { LoopPlan, OpenedLoop, Opening } from "./playbook/loop-plan.ts";

/** Sent by the execution when a loop step is entered. */
export interface LoopStart extends Opening {
  type: "start";
  activation: number;
}

/**
 * Ends a loop before its time: `cancel` drops what runs, `stop` lets it finish and issues no more.
 */
export interface LoopEnd {
  type: "cancel" | "stop";
  reason: string;
  /** The loop's start, for when this message arrives first. */
  start: LoopStart;
}

/** The execution is paused, or goes on after that pause. */
export interface LoopPause {
  type: "pause" | "resume";
  /** Which pause of the execution, from 1. */
  pause: number;
  /** As in `LoopEnd`. */
  start: LoopStart;
}

export interface LoopIdentity {
  execution_id: string;
  loop_id: string;
  step: string;
  activation: number;
  playbook: PlaybookPin;
}

export interface BegunLoop extends LoopIdentity, Pausable {
  plan: LoopPlan;
  collection?: Json[];
  collection_ref?: ResultReference;
  scope?: FrozenScope;
  scope_ref?: ResultReference;
  /** The activation that names the idempotency keys of its calls, when that is an earlier one. */
  keyed?: number;
  /** Settled items. */
  done: Bitmap;
  failed: Bitmap;
  doneCount: number;
  failedCount: number;
  /** Of the failed ones those that an earlier loop had failed, and that do not run again. */
  inheritedFailed?: number;
}

/**
 * What a start knows beside its event, so that the fold of that same turn need not load it again.
 */
export interface Fresh {
  execution_id: string;
  scope: FrozenScope;
  collection?: Json[];
}

/** What the first fact carries besides its meta. */
export function beginning(
  { execution_id, playbook, redrive }: LoopStart,
  { kept, plan }: OpenedLoop,
  { resumed }: Besides,
): JsonObject {
  return {
    ...kept,
    ...(resumed !== undefined && { pauses: resumed }),
    ...(redrive && { keyed: redrive.keyed }),
    execution_id,
    plan: plan as unknown as Json,
    playbook: { ...playbook },
  };
}

/** Of what it goes on with, and how much of it is settled; nothing when it begins anew. */
export function inheritance({ redrive }: LoopStart, { inherited }: OpenedLoop) {
  if (!inherited) return {};
  const { ok, failed } = inherited;
  return { redrive_of: redrive?.loop_id, inherited: { ok: ok.count(), failed: failed.count() } };
}

/** The same when it is folded for the first time. */
export function freshOf({ execution_id }: LoopStart, { scope, items }: OpenedLoop): Fresh {
  return { execution_id, scope, ...(items && { collection: items }) };
}

export function begunAs(
  event: EventOf<"loop.started" | "loop.fanout.started">,
  fresh?: Fresh,
): BegunLoop {
  const kept = (event.context ?? {}) as JsonObject;
  const { loop_id, step, activation } = event.meta;
  return {
    execution_id: fresh?.execution_id ?? String(kept["execution_id"]),
    loop_id,
    step,
    activation,
    playbook: kept["playbook"] as unknown as PlaybookPin,
    plan: kept["plan"] as unknown as LoopPlan,
    collection: fresh?.collection ?? (kept["collection"] as Json[] | undefined),
    collection_ref: kept["collection_ref"] as unknown as ResultReference | undefined,
    scope: fresh?.scope ?? (kept["scope"] as unknown as FrozenScope | undefined),
    scope_ref: kept["scope_ref"] as unknown as ResultReference | undefined,
    ...settledBefore(event),
    ...(typeof kept["pauses"] === "number" && { pauses: kept["pauses"] }),
  };
}

/** Nothing; of a redriven loop, what it inherits. */
function settledBefore({ meta, context }: EventOf<"loop.started" | "loop.fanout.started">) {
  const { ok: doneCount = 0, failed: failedCount = 0 } = meta.inherited ?? {};
  const sets = context?.["inherited"] as { ok: string; failed: string } | undefined;
  const empty = () => Bitmap.ofSize(meta.collection_size);
  const keyed = context?.["keyed"] as number | undefined;
  return {
    done: sets ? Bitmap.fromText(sets.ok) : empty(),
    failed: sets ? Bitmap.fromText(sets.failed) : empty(),
    ...{ doneCount, failedCount },
    ...(failedCount > 0 && { inheritedFailed: failedCount }),
    ...(keyed !== undefined && { keyed }),
  };
}
