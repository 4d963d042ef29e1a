/**
 * Roots of `workload` and `ctx` that are too large for a row or a message: kept in a result tier, a
 * mark with their reference in their place. Control rows stay small (design §4.9).
 */
import { Needs, type TurnContext } from "../decider.ts";
import type { ResultReference } from "../events.ts";
import type { FrozenScope } from "../frozen-scope.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import { dataOf, KeptValue, type Loaded } from "./stored-result.ts";

/** One root above this is kept elsewhere. */
const ROOT_BYTES_MAX = 16_384;
/** All roots of one map that stay in it, together: the largest go first. */
const MAP_BYTES_MAX = 65_536;

/** The only member of a mark. A value that came with one is itself kept: marks are ours alone. */
const MARK = "noetl:kept";

function referenceOf(value: unknown): ResultReference | undefined {
  if (!isObject(value) || !Object.hasOwn(value, MARK)) return undefined;
  return value[MARK] as ResultReference;
}

export function markOf(reference: ResultReference): Json {
  return { [MARK]: reference as unknown as Json };
}

/** The roots of a map that must be kept elsewhere, by name. */
export function largeRoots(map: JsonObject): [string, Json][] {
  const sized = Object.entries(map).map(([key, value]) => ({ key, value, bytes: bytesOf(value) }));
  sized.sort((one, other) => other.bytes - one.bytes);
  let total = sized.reduce((sum, { bytes }) => sum + bytes, 0);
  const large: [string, Json][] = [];
  for (const { key, value, bytes } of sized) {
    const isTooLarge = bytes > ROOT_BYTES_MAX || total > MAP_BYTES_MAX;
    if (!isTooLarge && referenceOf(value) === undefined) continue;
    large.push([key, value]);
    total -= bytes;
  }
  return large;
}

function bytesOf(value: Json): number {
  if (typeof value === "string")
    return value.length < 1_000 ? value.length : Buffer.byteLength(value);
  return typeof value === "object" && value !== null ? JSON.stringify(value).length : 8;
}

/**
 * The map with marks for its large roots. `name` is the name they are kept under, unique in the
 * execution. Throws Needs until they are stored.
 */
export function keepRoots(map: JsonObject, name: string, context: TurnContext): JsonObject {
  const large = largeRoots(map);
  if (large.length === 0) return map;
  const store: Needs["store"] = [];
  const kept = { ...map };
  for (const [key, value] of large) {
    const root = `${name}/${encodeURIComponent(key)}`;
    const reference = context.stored.get(root);
    if (reference) kept[key] = markOf(reference);
    else store.push({ name: root, value });
  }
  if (store.length > 0) throw new Needs({ store });
  return kept;
}

/** Plain data kept elsewhere: unlike a result it has no `data` of its own making. */
class KeptRoot extends KeptValue {
  override member(key: string | number): unknown {
    const { extract } = this.reference;
    if (extract && Object.hasOwn(extract, key)) return extract[key];
    const whole = this.plain();
    if (Array.isArray(whole)) return typeof key === "number" ? whole.at(key) : undefined;
    return isObject(whole) && Object.hasOwn(whole, key) ? whole[key] : undefined;
  }
}

/** The map as templates see it: marked roots are loaded when they are asked for. */
export function viewOfRoots(map: JsonObject, loaded: Loaded): Record<string, unknown> {
  let view: Record<string, unknown> | undefined;
  for (const [key, value] of Object.entries(map)) {
    const reference = referenceOf(value);
    if (!reference) continue;
    view ??= { ...map };
    view[key] = new KeptRoot(reference, loaded);
  }
  return view ?? map;
}

/** Parts of a scope that come from a frozen one, with faces for what is kept elsewhere. */
export function partsOf(scope: FrozenScope, loaded: Loaded) {
  const steps: Record<string, unknown> = {};
  for (const [name, result] of Object.entries(scope.steps)) steps[name] = dataOf(result, loaded);
  return {
    execution: scope.execution,
    workload: viewOfRoots(scope.workload, loaded),
    ctx: viewOfRoots(scope.ctx, loaded),
    steps,
    ...(scope.upstream === undefined ? {} : { result: steps[scope.upstream] }),
  };
}
