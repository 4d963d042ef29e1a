/** Reads what a user types: --set, --payload, files and folders of playbooks. */
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { Rejected } from "../schemas/errors.ts";
import { isObject } from "../schemas/json.ts";
import { LIMITS } from "../schemas/requests.ts";

type JsonMap = Record<string, unknown>;

const FORBIDDEN_KEYS = new Set(["__proto__", "constructor", "prototype"]);

/**
 * `--set a.b=1` → {a: {b: 1}}: dots nest, a value that is JSON is parsed, anything else is text,
 * and `k='"3"'` is the text 3. Later ones win. Throws Rejected for a setting without a name or `=`.
 */
export function parseSets(sets: readonly string[]): JsonMap {
  const payload: JsonMap = {};
  for (const set of sets) {
    const at = set.indexOf("=");
    const keys = set.slice(0, Math.max(at, 0)).split(".");
    if (at < 1 || keys.some(key => key === "" || FORBIDDEN_KEYS.has(key))) {
      throw new Rejected(`--set ${JSON.stringify(set)}: expected name=value or a.b=value`);
    }
    place(payload, keys, scalar(set.slice(at + 1)));
  }
  return payload;
}

function place(target: JsonMap, keys: string[], value: unknown): void {
  const [key = "", ...rest] = keys;
  if (rest.length === 0) {
    target[key] = value;
    return;
  }
  const inner = target[key];
  const next: JsonMap = isObject(inner) ? inner : {};
  target[key] = next;
  place(next, rest, value);
}

function scalar(text: string): unknown {
  // A long number would lose digits, so it stays the text it was.
  if (/^-?\d{16,}$/.test(text) && !Number.isSafeInteger(Number(text))) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/**
 * `--payload` (JSON, `@file.json`, `@file.yaml`, `@-` for stdin) with `--set` laid over it, or
 * undefined.
 */
export async function readPayload(
  payload: string | undefined,
  sets: readonly string[] = [],
): Promise<JsonMap | undefined> {
  const given = payload === undefined ? undefined : await readJsonMap(payload, "--payload");
  if (sets.length === 0) return given;
  return mergeDeep(given ?? {}, parseSets(sets));
}

function mergeDeep(base: JsonMap, over: JsonMap): JsonMap {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    merged[key] = isObject(value) && isObject(below) ? mergeDeep(below, value) : value;
  }
  return merged;
}

/**
 * A JSON object given directly or as `@file`. Errors name the option and the place, never the text.
 */
export async function readJsonMap(given: string, option: string): Promise<JsonMap> {
  const fromFile = given.startsWith("@");
  const name = given.slice(1);
  const text = fromFile ? await readInput(name, option) : given;
  const value = fromFile && /\.ya?ml$/i.test(name) ? parseYaml(text) : parseJson(text);
  if (isObject(value)) return value;
  const what = fromFile ? `${option} ${given}` : option;
  throw new Rejected(`${what}: expected a JSON object such as '{"n": 3}', or @file`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function parseYaml(text: string): unknown {
  const document = parseDocument(text, { prettyErrors: false });
  return document.errors.length > 0 ? undefined : (document.toJS() as unknown);
}

async function readInput(name: string, option: string): Promise<string> {
  if (name !== "-") return readText(name, option);
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

/** A playbook file's text. Rejected when it cannot be read or is beyond what the catalog takes. */
export async function readText(file: string, what = ""): Promise<string> {
  const label = what === "" ? file : `${what} ${file}`;
  try {
    const { size } = await stat(file);
    if (size > LIMITS.playbookMaxChars) {
      throw new Rejected(`${label}: larger than ${LIMITS.playbookMaxChars} bytes`, 413);
    }
    return await readFile(file, "utf8");
  } catch (error) {
    if (error instanceof Rejected) throw error;
    throw new Rejected(`${label}: ${whyUnreadable(error)}`);
  }
}

function whyUnreadable(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? "unreadable";
  const words: Record<string, string> = {
    ENOENT: "there is no such file",
    EISDIR: "this is a folder (register takes one with -d)",
    EACCES: "no permission to read it",
    ENOTDIR: "a part of the path is not a folder",
  };
  return words[code] ?? `cannot be read (${code})`;
}

/**
 * All `.yaml` and `.yml` files below a folder, sorted; hidden folders and node_modules are left
 * out.
 */
export async function listYamlFiles(folder: string): Promise<string[]> {
  let entries;
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw new Rejected(`${folder}: ${whyUnreadable(error)}`);
  }
  const files: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...(await listYamlFiles(path)));
    else if (/\.ya?ml$/i.test(entry.name)) files.push(path);
  }
  return files;
}

/** Whether a text calls itself a playbook; other YAML lies about in the same folders. */
export function isPlaybook(text: string): boolean {
  return /^kind:\s*["']?Playbook\b/im.test(text);
}
