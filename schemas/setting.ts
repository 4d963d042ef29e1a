/** How one setting is read from an environment variable: its name, parser, default and meaning. */
import { z } from "zod";
import { parseRate, parseTarget, showRate, RATE_EXPECTED, type Limit } from "./rate-limit.ts";

export interface Setting<T> {
  variable: string;
  /** Older or more general names, asked in this order when `variable` is not set. */
  aliases: readonly string[];
  fallback: T;
  schema: z.ZodType<T, string>;
  /** What a good value looks like, for the error. */
  expected: string;
  /** What it does, and its unit. */
  doc: string;
  /** A secret is never printed, not even in the error that refuses it. */
  secret: boolean;
  /** The value as one would write it in the environment. */
  show: (value: T) => string;
}

interface Options {
  aliases?: readonly string[];
  secret?: boolean;
}

function setting<T>(
  variable: string,
  fallback: T,
  schema: z.ZodType<T, string>,
  expected: string,
  doc: string,
  show: (value: T) => string,
  { aliases = [], secret = false }: Options = {},
): Setting<T> {
  return { variable, aliases, fallback, schema, expected, doc, secret, show };
}

const decimal = /^[+-]?\d+(\.\d+)?$/;

function numeric(accepts: (value: number) => boolean): z.ZodType<number, string> {
  return z
    .string()
    .refine(text => decimal.test(text) && accepts(Number(text)))
    .transform(Number);
}

/** A whole number between two bounds, both included. */
export function count(variable: string, fallback: number, doc: string, min = 1, max = 1e9) {
  const schema = numeric(value => Number.isInteger(value) && value >= min && value <= max);
  return setting(variable, fallback, schema, `a whole number from ${min} to ${max}`, doc, String);
}

/** Given in seconds, fractions allowed, kept in milliseconds. */
export function seconds(
  variable: string,
  fallback: number,
  doc: string,
  min = 0.001,
  max = 604_800,
  options?: Options,
) {
  const schema = numeric(value => value >= min && value <= max).transform(value =>
    Math.round(value * 1000),
  );
  const expected = `seconds from ${min} to ${max}`;
  const show = (ms: number) => String(ms / 1000);
  return setting(variable, fallback * 1000, schema, expected, doc, show, options);
}

/** A part of one: more than 0, at most 1. */
export function fraction(variable: string, fallback: number, doc: string, options?: Options) {
  const schema = numeric(value => value > 0 && value <= 1);
  const expected = "a number above 0, at most 1";
  return setting(variable, fallback, schema, expected, doc, String, options);
}

/** `true`/`false` and the usual spellings, in any case. */
export function flag(variable: string, fallback: boolean, doc: string) {
  const words: Record<string, boolean> = {
    true: true,
    yes: true,
    on: true,
    1: true,
    false: false,
    no: false,
    off: false,
    0: false,
  };
  const schema = z
    .string()
    .refine(text => Object.hasOwn(words, text.toLowerCase()))
    .transform(text => words[text.toLowerCase()] === true);
  return setting(variable, fallback, schema, "true or false", doc, String);
}

/** Text that is always there. */
export function text(variable: string, fallback: string, doc: string, options?: Options) {
  const schema = z.string();
  return setting(variable, fallback, schema, "text", doc, value => value, options);
}

/** Text that may be absent. */
export function optional(
  variable: string,
  doc: string,
  {
    pattern = /./s,
    expected = "text",
    ...options
  }: { pattern?: RegExp; expected?: string } & Options = {},
) {
  const schema = z.string().regex(pattern) as z.ZodType<string | undefined, string>;
  return setting(variable, undefined, schema, expected, doc, value => value ?? "", options);
}

/** One of a few words, in any case. */
export function choice<const T extends string>(
  variable: string,
  fallback: T,
  words: readonly T[],
  doc: string,
  { synonyms = {}, ...options }: Options & { synonyms?: Record<string, T> } = {},
) {
  const schema = z
    .string()
    .transform(value => synonyms[value.toLowerCase()] ?? value.toLowerCase())
    .refine(value => (words as readonly string[]).includes(value))
    .transform(value => value as T);
  return setting(variable, fallback, schema, words.join(", "), doc, value => value, options);
}

/** Words separated by commas. */
export function list(variable: string, doc: string, fallback: string[] = []) {
  const schema = z.string().transform(value =>
    value
      .split(",")
      .map(part => part.trim())
      .filter(part => part !== ""),
  );
  return setting<string[]>(variable, fallback, schema, "words with commas", doc, value =>
    value.join(","),
  );
}

/** Pairs `name=value` separated by commas, in the order given. */
export function pairs(variable: string, doc: string) {
  const pair = /^([^\s=]+)\s*=\s*(\S.*)$/;
  const schema = z
    .string()
    .transform(text => text.split(",").map(part => part.trim()))
    .refine(parts => parts.every(part => part === "" || pair.test(part)))
    .transform(parts =>
      parts.flatMap(part => {
        const [, name, value] = pair.exec(part) ?? [];
        return name === undefined || value === undefined ? [] : [{ name, value }];
      }),
    );
  return setting<{ name: string; value: string }[]>(
    variable,
    [],
    schema,
    "name=value pairs with commas",
    doc,
    value => value.map(one => `${one.name}=${one.value}`).join(","),
  );
}

/** Rate limits `target=rate` separated by commas; `none` for a target that wider ones spare. */
export function rates(variable: string, doc: string) {
  const read = ({ name, value }: { name: string; value: string }): Limit | undefined => {
    const target = parseTarget(name);
    const rate = value.trim() === "none" ? null : parseRate(value);
    return target === undefined || rate === undefined ? undefined : { target, rate };
  };
  const schema = pairs(variable, doc)
    .schema.transform(found => found.map(read))
    .refine(limits => limits.every(limit => limit !== undefined))
    .transform(limits => limits.filter(limit => limit !== undefined));
  const expected = `tool:host:NAME=rate with commas, ${RATE_EXPECTED}`;
  return setting<Limit[]>(variable, [], schema, expected, doc, limits =>
    limits.map(({ target, rate }) => `${target}=${showRate(rate)}`).join(","),
  );
}
