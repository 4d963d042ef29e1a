/**
 * Results as templates meet them: inline ones at once, kept ones loaded only when a template asks.
 */
import { Needs, type TurnContext } from "../decider.ts";
import type { OutcomeResult, ResultReference } from "../events.ts";
import type { PlaybookPin } from "../frozen-scope.ts";
import type { Json, JsonObject } from "../json.ts";
import type { Playbook } from "./model.ts";
import { viewOfResult } from "./scope-views.ts";
import { Interrupt } from "./template-error.ts";
import { View } from "./view.ts";

/** Values already loaded, by reference. */
export type Loaded = TurnContext["loaded"];

/** A value that is kept no longer, or is too large to load: fails whoever asks for it, typed. */
export class LostValue extends Interrupt {
  readonly kind = "missing_reference";
}

/**
 * The value behind a reference; throws Needs when it is not loaded yet, LostValue when it cannot
 * be. Nothing is ever invented in its place (design §4.8).
 */
export function needValue(reference: ResultReference, context: { loaded: Loaded }): Json {
  const value = context.loaded.get(reference.ref);
  if (value === undefined) throw new Needs({ load: [reference] });
  if (value instanceof Interrupt) throw value;
  return value;
}

/** Prefix of the reference under which a turn asks for a parsed playbook. */
export const CATALOG_PREFIX = "noetl://catalog/";

/** The reference by which a parsed playbook is asked for and kept. */
export function playbookReference({ path, version, hash }: PlaybookPin): ResultReference {
  return { ref: `${CATALOG_PREFIX}${path}@${version}#${hash}`, bytes: 0, tier: "catalog" };
}

/** The playbook an execution is pinned to; throws Needs when it is not loaded yet. */
export function needPlaybook(pin: PlaybookPin, context: { loaded: Loaded }): Playbook {
  return needValue(playbookReference(pin), context) as unknown as Playbook;
}

/** A value kept elsewhere: its extract answers at once, anything else asks for the whole. */
export class KeptValue extends View {
  readonly reference: ResultReference;
  protected readonly loaded: Loaded;

  constructor(reference: ResultReference, loaded: Loaded) {
    super();
    this.reference = reference;
    this.loaded = loaded;
  }

  override member(key: string | number): unknown {
    const extract = this.reference.extract;
    if (extract && Object.hasOwn(extract, key)) return extract[key];
    if (key === "_ref") return this.reference.ref;
    if (key === "_store") return this.reference.tier;
    if (key === "_preview") return extract ?? {};
    const whole = viewOfResult(this.plain());
    if (whole instanceof View) return whole.member(key);
    return Array.isArray(whole) && typeof key === "number" ? whole.at(key) : undefined;
  }

  override plain(): Json {
    return needValue(this.reference, { loaded: this.loaded });
  }
}

/** Results of a loop that one look at one of them loads. */
export const RESULTS_BLOCK = 1_000;

/** The result of a loop: each of its items is loaded by itself, with its neighbours. */
class LoopResult extends KeptValue {
  /** A part of what the log keeps of the loop, by its name below the loop's results. */
  part(name: string): Json {
    const ref = `${this.reference.ref}/${name}`;
    return needValue({ ref, bytes: 0, tier: "log" }, { loaded: this.loaded });
  }

  /** Of a fan-out, how its shards ended. */
  get fanin(): JsonObject | undefined {
    return this.reference.extract?.["fanin"] as JsonObject | undefined;
  }

  override member(key: string | number): unknown {
    // What a cursor gives may be one result a frame: it has no places to look at.
    const isCursor = this.reference.extract?.["frame_count"] !== undefined;
    if ((key === "results" || key === "data") && !isCursor) return new LoopItems(this, "results");
    if (key === "result") return this;
    if (key === "refs" && this.fanin) return new LoopItems(this, "refs");
    if (key === "fanin" && this.fanin) return new FaninView(this);
    return key === "failures" ? this.part("failures") : super.member(key);
  }
}

/** One value an item, in input order: its result, or of a fan-out the reference to it. */
class LoopItems extends View {
  readonly #of: LoopResult;
  readonly #what: "results" | "refs";

  constructor(of: LoopResult, what: "results" | "refs") {
    super();
    this.#of = of;
    this.#what = what;
  }

  override get length(): number {
    const stats = this.#of.reference.extract?.["stats"] as { total?: number } | undefined;
    return stats?.total ?? 0;
  }

  override member(key: string | number): unknown {
    if (key === "length") return this.length;
    const index = typeof key === "string" && /^\d+$/.test(key) ? Number(key) : key;
    if (typeof index !== "number" || !Number.isInteger(index)) return undefined;
    const at = index < 0 ? this.length + index : index;
    if (at < 0 || at >= this.length) return undefined;
    const block = Math.floor(at / RESULTS_BLOCK);
    return this.#block(block)[at - block * RESULTS_BLOCK] ?? null;
  }

  override plain(): Json {
    if (this.#what === "results") return (this.#of.plain() as { results: Json }).results;
    const blocks = Math.ceil(this.length / RESULTS_BLOCK);
    return Array.from({ length: blocks }, (_, block) => this.#block(block))
      .flat()
      .slice(0, this.length);
  }

  #block(block: number): Json[] {
    return this.#of.part(this.#what === "refs" ? `refs/${block}` : String(block)) as Json[];
  }
}

/** `fanin`: the counts at once, the references when they are asked for. */
class FaninView extends View {
  readonly #of: LoopResult;

  constructor(of: LoopResult) {
    super();
    this.#of = of;
  }

  override member(key: string | number): unknown {
    const known = this.#of.fanin ?? {};
    if (Object.hasOwn(known, key)) return known[key];
    return key === "refs" ? new LoopItems(this.#of, "refs") : undefined;
  }

  override plain(): Json {
    return { ...this.#of.fanin };
  }
}

/** `fanin` of a step that has just finished; undefined when it was no fan-out. */
export function faninOf({ reference }: OutcomeResult, loaded: Loaded): View | undefined {
  if (reference?.tier !== "log" || !reference.extract?.["fanin"]) return undefined;
  return new FaninView(new LoopResult(reference, loaded));
}

/** The data of an outcome as a template value. */
export function dataOf(result: OutcomeResult, loaded: Loaded): unknown {
  if (result.reference?.tier === "log") return new LoopResult(result.reference, loaded);
  if (result.reference) return new KeptValue(result.reference, loaded);
  return result.context ?? null;
}

/** The `output` a step-level `set` or an arc guard sees for a finished step. */
export function envelopeOf(result: OutcomeResult, loaded: Loaded): Record<string, unknown> {
  return {
    status: result.status,
    data: dataOf(result, loaded),
    ref: result.reference?.ref ?? null,
    error: result.error ?? null,
    ...(result.envelope ?? {}),
  };
}
