// Prometheus' text format 0.0.4, read strictly: what it does not allow is an error.

export interface Exposition {
  types: Map<string, string>;
  /** By series as it is written: `name{label="value"}`. */
  samples: Map<string, number>;
}

const COMMENT = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/;
const LABEL = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\]|\\\\[\\\\"n])*"`;
const SAMPLE = new RegExp(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\\{${LABEL}(?:,${LABEL})*\\})? (\\S+)$`);
const NUMBER = /^([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]Inf|NaN)$/;
const TYPES = new Set(["counter", "gauge", "histogram", "summary", "untyped"]);

/** Every line, or an error that names the one that is wrong. */
export function parseExposition(text: string): Exposition {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const found: Exposition = { types: new Map(), samples: new Map() };
  const helped = new Set<string>();
  let family = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = COMMENT.exec(line);
    if (comment) {
      const [, word, name = "", rest = ""] = comment;
      const isAgain = word === "HELP" ? helped.has(name) : found.types.has(name);
      if (isAgain) throw new Error(`${word} of ${name} is there twice`);
      if (word === "HELP") helped.add(name);
      else if (TYPES.has(rest)) found.types.set(name, rest);
      else throw new Error(`no type: ${line}`);
      family = name;
    } else addSample(found, family, line);
  }
  for (const [name, type] of found.types) if (type === "histogram") checkHistogram(found, name);
  return found;
}

function addSample({ types, samples }: Exposition, family: string, line: string): void {
  const [, name = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
  if (name === "" || !NUMBER.test(value)) throw new Error(`not a sample: ${line}`);
  const type = types.get(family);
  const suffix = name.startsWith(family) ? name.slice(family.length) : "?";
  const fits = type === "histogram" ? /^_(bucket|sum|count)$/.test(suffix) : suffix === "";
  if (type === undefined || !fits) throw new Error(`${line} is not of the family ${family}`);
  const series = name + labels;
  if (samples.has(series)) throw new Error(`${series} is there twice`);
  const number = Number(value.replace("Inf", "Infinity"));
  if (type === "counter" && !(number >= 0)) throw new Error(`a counter cannot be: ${line}`);
  samples.set(series, number);
}

function checkHistogram({ samples }: Exposition, name: string): void {
  const buckets = [...samples].filter(([series]) => series.startsWith(`${name}_bucket{le=`));
  let below = 0;
  for (const [series, count] of buckets) {
    if (count < below) throw new Error(`${series} is less than the bucket before`);
    below = count;
  }
  const all = samples.get(`${name}_bucket{le="+Inf"}`);
  if (all === undefined || all !== samples.get(`${name}_count`)) {
    throw new Error(`${name}: +Inf and count differ`);
  }
}
