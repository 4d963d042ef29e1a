/** Credentials that an operator gives this process: in a file, or in variables. */
import { readFile, stat } from "node:fs/promises";
import { parseDocument } from "yaml";
import { Rejected } from "../../schemas/errors.ts";
import { isObject } from "../../schemas/json.ts";

export interface Alias {
  type: string;
  data: Record<string, unknown>;
}

export const ALIAS_FILE_MAX_BYTES = 1_048_576;

/**
 * Reads `NOETL_CREDENTIALS_FILE`: a JSON or YAML map of alias to `{type, data}`. Throws Rejected
 * naming the file, the line or the alias, and never a value.
 */
export async function readAliasFile(file: string): Promise<Map<string, Alias>> {
  const place = `NOETL_CREDENTIALS_FILE: ${file}`;
  const text = await readText(file, place);
  // Pretty errors quote the line, which may hold a password.
  const document = parseDocument(text, { prettyErrors: false });
  const problem = document.errors[0];
  if (problem) {
    const line = text.slice(0, problem.pos[0]).split("\n").length;
    throw new Rejected(`${place}:${line}: not JSON or YAML (${problem.code})`, 422);
  }
  const value: unknown = document.toJS();
  if (!isObject(value))
    throw new Rejected(`${place}: expected a map of alias to {type, data}`, 422);
  const entries = Object.entries(value).map(
    ([alias, entry]) => [alias, readAlias(entry, `${place}: '${alias}'`)] as const,
  );
  return new Map(entries);
}

async function readText(file: string, place: string): Promise<string> {
  try {
    if ((await stat(file)).size > ALIAS_FILE_MAX_BYTES) {
      throw new Rejected(`${place}: larger than ${ALIAS_FILE_MAX_BYTES} bytes`, 422);
    }
    return await readFile(file, "utf8");
  } catch (error) {
    if (error instanceof Rejected) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? "unreadable";
    throw new Rejected(`${place}: cannot be read (${code})`, 422);
  }
}

/** `NOETL_CREDENTIAL_<ALIAS>`: lower-case alias to JSON text, as `schemas/env.ts` collects them. */
export function readAliasVariables(variables: Record<string, string>): Map<string, Alias> {
  const aliases = new Map<string, Alias>();
  for (const [alias, text] of Object.entries(variables)) {
    const place = `NOETL_CREDENTIAL_${alias.toUpperCase()}`;
    aliases.set(variableForm(alias), readAlias(parse(text, place), place));
  }
  return aliases;
}

/** The alias as a variable's name can spell it: `Pg-Local` is `pg_local`. */
export function variableForm(alias: string): string {
  return alias.toLowerCase().replace(/[^a-z0-9]/g, "_");
}

function parse(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Rejected(`${place}: not JSON`, 422);
  }
}

function readAlias(entry: unknown, place: string): Alias {
  if (!isObject(entry) || typeof entry.type !== "string" || !isObject(entry.data)) {
    throw new Rejected(`${place}: expected {"type": "postgres", "data": {…}}`, 422);
  }
  return { type: entry.type, data: entry.data };
}
