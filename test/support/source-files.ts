// Our own source files as texts and syntax trees, for the tests that read the house rules off them.
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url)).replace(/[\\/]$/, "");

const ROOMS = ["schemas", "mixins", "services", "cli", "examples", "bench", "test"];
const TEXTS = [...ROOMS, "k8s", ".ci"];
const NOT_OURS = new Set(["node_modules", "dist", ".git", ".noetl", "coverage"]);

export interface SourceFile {
  /** From the root, with forward slashes. */
  path: string;
  text: string;
  tree: ts.SourceFile;
}

export function sourceFile(path: string, text: string): SourceFile {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
  return { path, text, tree };
}

/** Every TypeScript file of ours, and the JavaScript that tools want. */
export function ourSources(): SourceFile[] {
  return [...ROOMS.flatMap(room => walk(join(ROOT, room))), ...rootFiles()]
    .filter(file => /\.(ts|mts|js|mjs)$/.test(file) && !file.includes(`dashboard${sep}`))
    .map(file => sourceFile(pathOf(file), readFileSync(file, "utf8")));
}

/** Every text that a reader of the repository sees. */
export function ourTexts(): { path: string; text: string }[] {
  return [...TEXTS.flatMap(room => walk(join(ROOT, room))), ...rootFiles()]
    .filter(file => !/\.(png|jpg|ico|gz)$/.test(file))
    .map(file => ({ path: pathOf(file), text: readFileSync(file, "utf8") }));
}

function rootFiles(): string[] {
  const entries = readdirSync(ROOT, { withFileTypes: true });
  return entries.filter(entry => entry.isFile()).map(entry => join(ROOT, entry.name));
}

function walk(folder: string): string[] {
  let entries;
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    return []; // A room that is not built yet.
  }
  return entries.flatMap(entry => {
    if (NOT_OURS.has(entry.name)) return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? walk(path) : [path];
  });
}

function pathOf(file: string): string {
  return relative(ROOT, file).split(sep).join("/");
}
