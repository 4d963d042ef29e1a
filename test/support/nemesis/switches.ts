// Rules of the product that are switched off on purpose, in a process of a test only: a module is
// changed while it is loaded. With each of them the checker must find a violation.
import type { LoadHookSync } from "node:module";

export interface Switch {
  /** Path inside the project. */
  file: string;
  /** What stands there, and what is loaded instead. */
  find: string;
  instead: string;
}

export const SWITCHES: Record<string, Switch> = {};

/** A hook that loads the switched module; undefined without a name. Throws for an unknown one. */
export function rewriting(name: string | undefined): LoadHookSync | undefined {
  if (!name) return undefined;
  const found = SWITCHES[name];
  if (!found) throw new Error(`there is no switch ${name}`);
  return (url, context, nextLoad) => {
    const loaded = nextLoad(url, context);
    if (!url.endsWith(found.file)) return loaded;
    const source = String(loaded.source);
    if (!source.includes(found.find)) {
      throw new Error(`switch ${name}: ${found.file} no longer contains ${found.find}`);
    }
    return { ...loaded, source: source.replace(found.find, found.instead) };
  };
}
