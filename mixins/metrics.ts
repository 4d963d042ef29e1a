// What a process counts, for Prometheus: rooms say how their numbers are read, and they are read
// only when somebody asks. Text format 0.0.4.

export type MetricType = "counter" | "gauge" | "histogram";

export interface Family {
  /** `noetl_…` with its unit; a counter ends in `_total`. */
  name: string;
  help: string;
}

export interface Sample {
  labels?: Record<string, string>;
  value: number;
}

type Reading = number | readonly Sample[];
export type Read = () => Reading | Promise<Reading>;

/** The registry of one process. A family may have several sources; each brings other labels. */
export interface Metrics {
  counter(family: Family, read: Read): void;
  gauge(family: Family, read: Read): void;
  /** Of anything that has been measured: a histogram is filled by its room. */
  histogram(family: Family, read: () => Histogram): void;
  /** Everything, as Prometheus reads it. A source that fails or takes long is left out. */
  render(): Promise<string>;
}

export const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** A scrape is worth more with a hole in it than late. */
const READ_MS = 1_000;
/** Series of one family at most: labels come from closed sets, and this says when one is not. */
const SERIES_MAX = 1_000;
const NAME = /^noetl_[a-z0-9_]+$/;

interface Registered extends Family {
  type: MetricType;
  reads: (Read | (() => Histogram))[];
}

export function createMetrics(): Metrics {
  const families = new Map<string, Registered>();

  function register(type: MetricType, family: Family, read: Registered["reads"][number]): void {
    const { name } = family;
    if (!NAME.test(name) || (type === "counter") !== name.endsWith("_total")) {
      throw new Error(`${name} is no name of a ${type}`);
    }
    const known = families.get(name);
    if (known && known.type !== type) throw new Error(`${name} is a ${known.type} already`);
    if (known) known.reads.push(read);
    else families.set(name, { ...family, type, reads: [read] });
  }

  return {
    counter: (family, read) => register("counter", family, read),
    gauge: (family, read) => register("gauge", family, read),
    histogram: (family, read) => register("histogram", family, read),
    async render() {
      const blocks = await Promise.all([...families.values()].map(rendered));
      return `${blocks.join("\n")}\n`;
    },
  };
}

async function rendered({ name, help, type, reads }: Registered): Promise<string> {
  const readings = await Promise.all(reads.map(read => inTime(read)));
  const lines = new Map<string, number>();
  for (const reading of readings) {
    for (const [series, value] of seriesOf(name, reading)) {
      if (lines.size < SERIES_MAX) lines.set(series, value);
    }
  }
  return [
    `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`,
    `# TYPE ${name} ${type}`,
    ...[...lines].map(([series, value]) => `${series} ${textOf(value)}`),
  ].join("\n");
}

/** What a source says, or nothing when it fails or does not say it in time. */
async function inTime(read: Registered["reads"][number]): Promise<Reading | Histogram> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Sample[]>(resolve => {
    timer = setTimeout(() => resolve([]), READ_MS);
  });
  try {
    return await Promise.race([read(), late]);
  } catch {
    return [];
  } finally {
    clearTimeout(timer);
  }
}

function* seriesOf(name: string, reading: Reading | Histogram): Generator<[string, number]> {
  if (typeof reading === "number") yield [name, reading];
  else if (reading instanceof Histogram) yield* reading.series(name);
  else for (const { labels = {}, value } of reading) yield [`${name}${labelsOf(labels)}`, value];
}

function labelsOf(labels: Record<string, string>): string {
  const pairs = Object.entries(labels).map(([label, value]) => `${label}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function textOf(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

/** Durations in seconds, counted by upper bounds. */
export class Histogram {
  readonly #bounds: readonly number[];
  /** One more than bounds: what is above the last. */
  readonly #counts: number[];
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = Array<number>(bounds.length + 1).fill(0);
  }

  observe(seconds: number): void {
    let place = 0;
    while (place < this.#bounds.length && seconds > (this.#bounds[place] ?? 0)) place += 1;
    this.#counts[place] = (this.#counts[place] ?? 0) + 1;
    this.#sum += seconds;
  }

  *series(name: string): Generator<[string, number]> {
    let count = 0;
    for (const [place, bound] of [...this.#bounds, Infinity].entries()) {
      count += this.#counts[place] ?? 0;
      yield [`${name}_bucket{le="${textOf(bound)}"}`, count];
    }
    yield [`${name}_sum`, this.#sum];
    yield [`${name}_count`, count];
  }
}

/**
 * Counts by one label from a closed set. All are there from the start, at zero, so that an alert
 * on one that has never been seen has something to look at; what is not of the set is `other`.
 */
export class CountsBy<Value extends string> {
  readonly #label: string;
  readonly #counts: Map<string, number>;

  constructor(label: string, values: readonly Value[]) {
    this.#label = label;
    this.#counts = new Map(values.map(value => [value, 0]));
  }

  add(value: string): void {
    const known = this.#counts.has(value) ? value : "other";
    this.#counts.set(known, (this.#counts.get(known) ?? 0) + 1);
  }

  samples(): Sample[] {
    return [...this.#counts].map(([value, count]) => ({
      labels: { [this.#label]: value },
      value: count,
    }));
  }
}
