/** Programs that a task does not write itself: base64, and `script: {uri, source: {type}}`. */
import { readFile, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { isObject } from "../schemas/json.ts";
import { configFailure } from "./tool.ts";

/** Largest program of one task, read from a file or decoded, in bytes. */
export const SCRIPT_MAX_BYTES = 16 * 1024 * 1024;

/** Text behind base64. Throws a config failure that names the field. */
export function decodeBase64(text: string, field: string): string {
  const compact = text.replace(/\s+/g, "");
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(compact)) throw configFailure(`${field}: not base64`);
  return Buffer.from(compact, "base64").toString("utf8");
}

/**
 * The text of a script: `inline` in `source.code`, else the file `uri`, which is read from below
 * `root`. Throws config failures that name the field.
 */
export async function readScript(value: unknown, root: string): Promise<string> {
  if (!isObject(value)) throw configFailure("script: expected {uri, source: {type: file}}");
  const source = isObject(value.source) ? value.source : {};
  const type = source.type ?? "file";
  if (type === "inline" && typeof source.code === "string") return source.code;
  if (type !== "file") {
    throw configFailure(`script.source.type: '${String(type)}' is not supported`, "use file");
  }
  if (typeof value.uri !== "string" || value.uri.trim() === "") {
    throw configFailure("script.uri: it is required");
  }
  const uri = value.uri.replace(/^file:\/\//, "");
  try {
    const base = await realpath(root);
    const file = await realpath(path.resolve(base, uri));
    const inside = path.relative(base, file);
    if (inside.startsWith("..") || path.isAbsolute(inside)) {
      throw configFailure(`script.uri: '${value.uri}' lies outside the working directory`);
    }
    if ((await stat(file)).size > SCRIPT_MAX_BYTES) {
      throw configFailure(`script.uri: '${value.uri}' is larger than ${SCRIPT_MAX_BYTES} bytes`);
    }
    return await readFile(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === undefined) throw error;
    throw configFailure(`script.uri: '${value.uri}' cannot be read: ${code}`);
  }
}
