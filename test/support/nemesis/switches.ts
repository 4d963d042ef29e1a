// Rules of the product that are switched off on purpose, in a process of a test only: a module is
// changed while it is loaded. With each of them the checker must find a violation.
import type { LoadHookSync } from "node:module";

interface Switch {
  /** Path inside the project. */
  file: string;
  /** What stands there, and what is loaded instead. */
  find: string;
  instead: string;
}

const SWITCHES: Record<string, Switch> = {
  /** What a loop has done is counted by the process that saw it, from its own start on. */
  "counts in memory": {
    file: "/services/loops/advance.ts",
    find: "doneCount: success, failedCount: failed, digest, firstError: error } = state;",
    instead: `doneCount, failedCount: failed, digest, firstError: error } = state;
      const seen = (globalThis as any).seenCounts ??= new Map();
      if (!seen.has(state.loop_id)) seen.set(state.loop_id, doneCount);
      const success = doneCount - seen.get(state.loop_id);`,
  },
  /** What a credential adds to a request is in the answer. */
  "secrets in results": {
    file: "/services/tool.http/exchange.ts",
    find: "const headers = plainHeaders(response.headers);",
    instead: `const headers = {
      ...plainHeaders(response.headers), ...Object.fromEntries(secrets.headers) };`,
  },
};

/** A hook that loads switched modules; undefined without names. Throws for an unknown one. */
export function rewriting(names = ""): LoadHookSync | undefined {
  if (names === "") return undefined;
  const switches = names.split(",").map(name => {
    const found = SWITCHES[name];
    if (!found) throw new Error(`there is no switch '${name}'`);
    return found;
  });
  return (url, context, nextLoad) => {
    const loaded = nextLoad(url, context);
    const found = switches.find(({ file }) => url.endsWith(file));
    if (!found) return loaded;
    const source = String(loaded.source);
    if (!source.includes(found.find)) {
      throw new Error(`${found.file} no longer contains what is switched off: ${found.find}`);
    }
    return { ...loaded, source: source.replace(found.find, found.instead) };
  };
}
