/**
 * What a command needs of its worker, and what a worker offers, in the same words: a capability
 * (`python`, `gpu`) or a label (`zone=eu`). A worker serves a command whose words it all has.
 */
import { isObject } from "./json.ts";
import type { Step } from "./playbook/model.ts";

/** Words of one command, and of one worker; a ring carries the former. */
export const NEEDS_MAX = 16;
export const OFFERS_MAX = 64;
const WORD = /^[A-Za-z0-9][\w.-]{0,62}(=[\w.-]{1,63})?$/;
export const WORD_EXPECTED = "letters, digits, _ . - as gpu, or name=value as zone=eu";

/** Tool kinds that not every machine can run, and the capability that says that one can. */
const CAPABILITY_OF: Readonly<Record<string, string>> = {
  python: "python",
  duckdb: "duckdb",
  ducklake: "duckdb",
};

export function isWord(text: unknown): text is string {
  return typeof text === "string" && WORD.test(text);
}

/**
 * The words of `spec.requires`: a list of them, or `{capabilities: [gpu], labels: {zone: eu}}`;
 * undefined when it is neither.
 */
export function readRequires(raw: unknown): string[] | undefined {
  const words = wordsOf(raw);
  if (!words?.every(isWord) || words.length > NEEDS_MAX) return undefined;
  return [...new Set(words)].sort();
}

function wordsOf(raw: unknown): unknown[] | undefined {
  if (Array.isArray(raw)) return raw;
  if (!isObject(raw)) return undefined;
  const { capabilities = [], labels = {}, ...rest } = raw;
  if (Object.keys(rest).length > 0 || !Array.isArray(capabilities) || !isObject(labels)) {
    return undefined;
  }
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${String(value)}`);
  return [...(capabilities as unknown[]), ...pairs];
}

/** What a step's commands need: as it says, and what its tools cannot do without. */
export function needsOf({ requires = [], tasks }: Pick<Step, "requires" | "tasks">): string[] {
  const ofTools = tasks.flatMap(task => CAPABILITY_OF[task.kind] ?? []);
  return [...new Set([...requires, ...ofTools])].sort();
}

/** The field of an event or a ring; absent where nothing is needed. */
export function needing(needs: readonly string[] | undefined): { requires?: string[] } {
  return needs && needs.length > 0 ? { requires: [...needs] } : {};
}

export function serves(offers: readonly string[], needs: readonly string[] = []): boolean {
  return needs.every(word => offers.includes(word));
}
