/** The table of filters, with those that apply other filters and tests to each element. */
import { nearest } from "./nearest.ts";
import { Problem } from "./template-error.ts";
import { LIST_FILTERS, attributeOf } from "./template-list-filters.ts";
import { TEXT_FILTERS } from "./template-text-filters.ts";
import type { FilterSpec } from "./template-text-filters.ts";
import { TESTS } from "./template-tests.ts";
import { itemsOf, spend, toText, truthy } from "./template-values.ts";
import type { Run } from "./template-values.ts";

function filterNamed(name: unknown): FilterSpec {
  const filter = FILTERS.get(toText(name));
  if (filter) return filter;
  const near = nearest(toText(name), FILTERS.keys());
  throw new Problem(`unknown filter '${toText(name)}'`, near && `did you mean '${near}'?`);
}

function map(value: unknown, args: unknown[], run: Run): unknown[] {
  const [name, first, second, third, attribute, fallback] = args;
  if (attribute !== undefined) {
    return itemsOf(value).map(item => {
      spend(run, 1);
      return attributeOf(item, attribute) ?? fallback ?? null;
    });
  }
  const filter = filterNamed(name);
  const given = [first, second, third];
  return itemsOf(value).map(item => {
    spend(run, 1 + toTextCost(item));
    return filter.call(item, given, run) ?? null;
  });
}

/** Text made by a filter inside `map` is charged like text made by a filter on its own. */
function toTextCost(item: unknown): number {
  return typeof item === "string" ? item.length >> 4 : 0;
}

function matcher(name: unknown, arg: unknown, run: Run): (value: unknown) => boolean {
  if (name === undefined) return truthy;
  const test = TESTS.get(toText(name));
  if (test) return value => test.call(value, arg, run);
  const near = nearest(toText(name), TESTS.keys());
  throw new Problem(`unknown test '${toText(name)}'`, near && `did you mean '${near}'?`);
}

function picking(wanted: boolean): FilterSpec {
  return {
    params: ["test", "arg"],
    call: (value, args, run) => {
      const matches = matcher(args[0], args[1], run);
      return itemsOf(value).filter(item => {
        spend(run, 1);
        return matches(item) === wanted;
      });
    },
  };
}

function pickingBy(wanted: boolean): FilterSpec {
  return {
    params: ["attribute", "test", "arg"],
    required: 1,
    call: (value, args, run) => {
      const matches = matcher(args[1], args[2], run);
      return itemsOf(value).filter(item => {
        spend(run, 1);
        return matches(attributeOf(item, args[0])) === wanted;
      });
    },
  };
}

/** Every filter there is, by name. A Map, so that `constructor` is just an unknown name. */
export const FILTERS: ReadonlyMap<string, FilterSpec> = new Map<string, FilterSpec>([
  ...TEXT_FILTERS,
  ...LIST_FILTERS,
  ["map", { params: ["filter", "arg1", "arg2", "arg3", "attribute", "default"], call: map }],
  ["select", picking(true)],
  ["reject", picking(false)],
  ["selectattr", pickingBy(true)],
  ["rejectattr", pickingBy(false)],
]);
