/** Filters on lists and maps. None changes its input; sorting and grouping follow Jinja. */
import { MAX_ITERATIONS, Problem } from "./template-error.ts";
import { compare, equal, ARITHMETIC } from "./template-operators.ts";
import { fits, itemsOf, kindOf, mapOf, member, spend, toJson } from "./template-values.ts";
import { toText, truthy } from "./template-values.ts";
import type { Run } from "./template-values.ts";
import { integerArg } from "./template-text-filters.ts";
import type { FilterSpec } from "./template-text-filters.ts";

/** `a.b.0` of an item, the way `attribute=` names it. */
export function attributeOf(item: unknown, path: unknown): unknown {
  if (typeof path === "number") return member(item, path);
  return toText(path)
    .split(".")
    .reduce((value, key) => member(value, key), item);
}

function attributed(item: unknown, path: unknown): unknown {
  return path === undefined || path === null ? item : attributeOf(item, path);
}

/** What sorting and uniqueness compare: text without its case unless asked otherwise. */
function sortable(item: unknown, path: unknown, caseSensitive: unknown): unknown {
  const value = attributed(item, path);
  return typeof value === "string" && !truthy(caseSensitive) ? value.toLowerCase() : value;
}

function sorted<T>(items: T[], keyOf: (item: T) => unknown, reverse: unknown, run: Run): T[] {
  const keyed = items.map(item => ({ item, key: keyOf(item) }));
  const sign = truthy(reverse) ? -1 : 1;
  keyed.sort((a, b) => sign * compareNullable(a.key, b.key, run));
  return keyed.map(entry => entry.item);
}

/** None and undefined come first, as missing values must not make a list unsortable. */
function compareNullable(a: unknown, b: unknown, run: Run): number {
  if ((a ?? null) === null || (b ?? null) === null) return Number(b == null) - Number(a == null);
  return compare(a, b, run);
}

function sort(value: unknown, args: unknown[], run: Run): unknown[] {
  const [reverse, caseSensitive, path] = args;
  return sorted(itemsOf(value), item => sortable(item, path, caseSensitive), reverse, run);
}

function unique(value: unknown, args: unknown[], run: Run): unknown[] {
  const seen = new Set<unknown>();
  return itemsOf(value).filter(item => {
    const key = sortable(item, args[1], args[0]);
    spend(run, 1);
    const mark = typeof key === "object" && key !== null ? `json:${toJson(key)}` : key;
    if (seen.has(mark)) return false;
    seen.add(mark);
    return true;
  });
}

function extreme(sign: 1 | -1) {
  return (value: unknown, args: unknown[], run: Run): unknown => {
    let best: unknown;
    let bestKey: unknown;
    for (const item of itemsOf(value)) {
      const key = sortable(item, args[1], args[0]);
      if ((key ?? null) === null) continue;
      if (bestKey === undefined || sign * compare(key, bestKey, run) < 0)
        [best, bestKey] = [item, key];
    }
    return best;
  };
}

function sum(value: unknown, args: unknown[], run: Run): unknown {
  const add = ARITHMETIC.get("Add");
  let total: unknown = args[1] ?? 0;
  for (const item of itemsOf(value)) total = add?.(total, attributed(item, args[0]), run);
  return total;
}

function join(value: unknown, args: unknown[]): string {
  const texts = itemsOf(value).map(item => toText(attributed(item, args[1])));
  const separator = toText(args[0]);
  fits(texts.reduce((chars, part) => chars + part.length + separator.length, 0));
  return texts.join(separator);
}

function groupBy(value: unknown, args: unknown[], run: Run): unknown[] {
  const [path, fallback, caseSensitive] = args;
  const keyOf = (item: unknown) => attributeOf(item, path) ?? fallback;
  const folded = (item: unknown) => sortable(keyOf(item), undefined, caseSensitive);
  const groups: { grouper: unknown; list: unknown[] }[] = [];
  let last: unknown;
  for (const item of sorted(itemsOf(value), folded, false, run)) {
    const key = folded(item);
    const group = groups.at(-1);
    if (group && equal(key, last, run)) group.list.push(item);
    else groups.push({ grouper: keyOf(item) ?? null, list: [item] });
    last = key;
  }
  return groups;
}

function batch(value: unknown, args: unknown[]): unknown[] {
  const size = integerArg(args[0], 1, "batch");
  if (size < 1) throw new Problem("batch wants a size of at least 1");
  const items = itemsOf(value);
  const rows: unknown[][] = [];
  for (let at = 0; at < items.length; at += size) rows.push(items.slice(at, at + size));
  const last = rows.at(-1);
  if (last && args[1] !== undefined && args[1] !== null) fill(last, size, args[1]);
  return rows;
}

function fill(row: unknown[], size: number, value: unknown): void {
  if (size > MAX_ITERATIONS) throw new Problem("the filled row would be too long");
  while (row.length < size) row.push(value);
}

function slice(value: unknown, args: unknown[]): unknown[] {
  const count = integerArg(args[0], 1, "slice");
  if (count < 1 || count > MAX_ITERATIONS) throw new Problem("slice wants a count from 1");
  const items = itemsOf(value);
  const [size, extra] = [Math.floor(items.length / count), items.length % count];
  let at = 0;
  return Array.from({ length: count }, (_, index) => {
    const row = items.slice(at, (at += size + (index < extra ? 1 : 0)));
    const short = index >= extra && extra > 0;
    return short && args[1] !== undefined ? [...row, args[1]] : row;
  });
}

function dictSort(value: unknown, args: unknown[], run: Run): unknown[] {
  const [caseSensitive, by, reverse] = args;
  if (by !== undefined && by !== "key" && by !== "value")
    throw new Problem("dictsort: key or value");
  const place = by === "value" ? 1 : 0;
  const entries = Object.entries(mapOf(value, "dictsort"));
  return sorted(entries, entry => sortable(entry[place], undefined, caseSensitive), reverse, run);
}

function reverse(value: unknown): unknown {
  if (typeof value === "string") return Array.from(value).reverse().join("");
  return itemsOf(value).toReversed();
}

function ends(at: 0 | -1) {
  return (value: unknown): unknown => {
    if (value === undefined || value === null) return undefined;
    if (typeof value === "string" || Array.isArray(value)) return value.at(at);
    if (typeof value === "object") return Object.keys(value).at(at);
    throw new Problem(`${kindOf(value)} has no first or last element`);
  };
}

function list(name: string, call: FilterSpec["call"], params: string[] = [], required = 0) {
  return [name, { params, call, required }] as [string, FilterSpec];
}

/** By name. */
export const LIST_FILTERS: [string, FilterSpec][] = [
  list("first", ends(0)),
  list("last", ends(-1)),
  list("list", value => [...itemsOf(value)]),
  list("join", join, ["d", "attribute"]),
  list("sort", sort, ["reverse", "case_sensitive", "attribute"]),
  list("unique", unique, ["case_sensitive", "attribute"]),
  list("reverse", reverse),
  list("sum", sum, ["attribute", "start"]),
  list("min", extreme(1), ["case_sensitive", "attribute"]),
  list("max", extreme(-1), ["case_sensitive", "attribute"]),
  list("groupby", groupBy, ["attribute", "default", "case_sensitive"], 1),
  list("batch", batch, ["linecount", "fill_with"], 1),
  list("slice", slice, ["slices", "fill_with"], 1),
  list("dictsort", dictSort, ["case_sensitive", "by", "reverse"]),
];
