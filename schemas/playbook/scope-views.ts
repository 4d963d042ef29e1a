/** The lazy faces of results: what `step.data.x`, `output.x` and `iter.x` mean in a template. */
import { isObject } from "../json.ts";
import type { Json } from "../json.ts";
import { View, unwrap } from "./view.ts";

type Fields = Record<string, unknown>;

/** An own member of plain data, undefined when absent. */
export function own(fields: Fields | undefined, key: string | number): unknown {
  return fields !== undefined && Object.hasOwn(fields, key) ? fields[key] : undefined;
}

/** The map with values that are kept elsewhere taken in; itself when there are none. */
function whole(fields: Fields): Json {
  const entries = Object.entries(fields);
  if (!entries.some(([, value]) => value instanceof View)) return fields as Json;
  return Object.fromEntries(entries.map(([key, value]) => [key, unwrap(value)])) as Json;
}

/** A result as templates see it: maps get the proxies, lists and scalars stay as they are. */
export function viewOfResult(result: unknown): unknown {
  if (result instanceof View) return result;
  return isObject(result) ? new ResultView(result) : result;
}

/**
 * A result R of a task or step: `R.data` and `R.result` are R where R has no such key, an http
 * result falls through to its body, and the labels of a pipeline are results themselves.
 */
export class ResultView extends View {
  readonly #result: Fields;

  constructor(result: Fields) {
    super();
    this.#result = result;
  }

  override member(key: string | number): unknown {
    const result = this.#result;
    if (Object.hasOwn(result, key)) return this.#field(key);
    if (key === "data" || key === "result") return this;
    return own(httpBody(result), key);
  }

  #field(key: string | number): unknown {
    const labels = this.#result["results"];
    if (!isObject(labels)) return this.#result[key];
    if (key === "results") return new ResultsView(labels);
    const isLabel = Object.hasOwn(labels, key) || key === "_prev";
    return isLabel ? viewOfResult(this.#result[key]) : this.#result[key];
  }

  override plain(): Json {
    return this.#result as Json;
  }
}

/** The body of an http result when it is a map. */
function httpBody(result: Fields): Fields | undefined {
  if (typeof own(result, "status_code") !== "number") return undefined;
  const body = own(result, "body") ?? own(result, "data");
  return isObject(body) ? body : undefined;
}

/** `results.<label>` and `steps.<name>`: a map whose members are results. */
export class ResultsView extends View {
  readonly #results: Fields;

  constructor(results: Fields) {
    super();
    this.#results = results;
  }

  override member(key: string | number): unknown {
    return viewOfResult(own(this.#results, key));
  }

  override plain(): Json {
    return whole(this.#results);
  }
}

/** The envelope `output`: its own fields, and behind them those of its data. */
export class OutputView extends View {
  readonly #envelope: Fields;

  constructor(envelope: Fields) {
    super();
    this.#envelope = envelope;
  }

  override member(key: string | number): unknown {
    const data = viewOfResult(own(this.#envelope, "data"));
    if (key === "data") return data;
    if (Object.hasOwn(this.#envelope, key)) return this.#envelope[key];
    if (Array.isArray(data)) return typeof key === "number" ? data.at(key) : undefined;
    return data instanceof View ? data.member(key) : undefined;
  }

  override plain(): Json {
    return whole(this.#envelope);
  }
}

/** `output` in a task's own `set`: the result itself, and behind it the envelope's fields. */
export class TaskOutputView extends View {
  readonly #data: Fields;
  readonly #envelope: Fields;

  constructor(data: Fields, envelope: Fields) {
    super();
    this.#data = data;
    this.#envelope = envelope;
  }

  override member(key: string | number): unknown {
    const found = new ResultView(this.#data).member(key);
    return found === undefined ? own(this.#envelope, key) : found;
  }

  override plain(): Json {
    return this.#data as Json;
  }
}

/** Several maps read as one, the first that has the key wins; merged only when asked for whole. */
export class LayeredView extends View {
  readonly #layers: readonly Fields[];
  #merged: Fields | undefined;

  /** Layers from the strongest to the weakest. */
  constructor(layers: readonly Fields[]) {
    super();
    this.#layers = layers;
  }

  override member(key: string | number): unknown {
    for (const layer of this.#layers) if (Object.hasOwn(layer, key)) return layer[key];
    return undefined;
  }

  override plain(): Json {
    this.#merged ??= this.#layers.reduceRight((below, layer) => ({ ...below, ...layer }), {});
    return whole(this.#merged);
  }
}
