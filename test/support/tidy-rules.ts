// The house rules that a program can check. Each comes with an example that it must refuse.
import { posix } from "node:path";
import ts from "typescript";
import type { SourceFile } from "./source-files.ts";

export interface Rule {
  /** The sentence that holds for every file. */
  name: string;
  /** What is wrong, each with its line. */
  check(file: SourceFile): string[];
  /** A file that breaks the rule, to see that the rule can fail. */
  bad: { path: string; text: string };
}

const MAX_LINES = 320;
const MAX_TEST_LINES = 500;
const MAX_FUNCTION_LINES = 70;
const MAX_COLUMNS = 100;

const isTest = (file: SourceFile): boolean => file.path.startsWith("test/");

function at(file: SourceFile, node: ts.Node): string {
  const { line } = file.tree.getLineAndCharacterOfPosition(node.getStart(file.tree));
  return `${file.path}:${line + 1}`;
}

/** Every node of a file for which `test` returns something to say. */
function find(file: SourceFile, test: (node: ts.Node) => string | false): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    const message = test(node);
    if (message) found.push(`${at(file, node)} ${message}`);
    ts.forEachChild(node, visit);
  };
  visit(file.tree);
  return found;
}

/** What a file imports or re-exports, statically or not. */
function imports(file: SourceFile): { node: ts.Node; target: string }[] {
  const found: { node: ts.Node; target: string }[] = [];
  find(file, node => {
    const isStatic = ts.isImportDeclaration(node) || ts.isExportDeclaration(node);
    const isCall =
      ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword;
    const name = isStatic ? node.moduleSpecifier : isCall ? node.arguments[0] : undefined;
    if (name && ts.isStringLiteral(name)) found.push({ node, target: name.text });
    return false;
  });
  return found;
}

function checkImports(
  file: SourceFile,
  refuse: (target: string, path: string | undefined) => boolean,
): string[] {
  return imports(file)
    .map(({ node, target }) => {
      const isOurs = target.startsWith(".");
      const path = isOurs ? posix.join(posix.dirname(file.path), target) : undefined;
      return refuse(target, path) ? `${at(file, node)} imports ${target}` : "";
    })
    .filter(Boolean);
}

/** The rooms a room may look into. A service sees its own room only. */
function mayImport(from: string, to: string): boolean {
  const [room = "", service] = from.split("/");
  if (to.startsWith("schemas/")) return true;
  if (room === "schemas") return false;
  if (room === "test") return true;
  if (to.startsWith("mixins/")) return true;
  if (room === "mixins") return false;
  if (room === "services") return to.startsWith(`services/${service}/`);
  const isDoor = to.endsWith(".service.ts");
  return !to.startsWith("services/") || isDoor;
}

const SCHEMA_PACKAGES = new Set(["zod", "yaml", "nunjucks", "node:crypto"]);

function isEnvironment(node: ts.Node): boolean {
  return (
    ts.isPropertyAccessExpression(node) &&
    node.name.text === "env" &&
    ts.isIdentifier(node.expression) &&
    node.expression.text === "process"
  );
}

const imported: Rule[] = [
  {
    name: "schemas ← mixins ← services: a room imports only what is below it, and its own",
    check: file => checkImports(file, (_, path) => !!path && !mayImport(file.path, path)),
    bad: { path: "services/a/a.service.ts", text: 'import { x } from "../b/route.ts";' },
  },
  {
    name: "schemas are pure: zod, yaml, nunjucks and node:crypto are their only packages",
    check(file) {
      if (!file.path.startsWith("schemas/")) return [];
      return checkImports(file, (target, path) => !path && !SCHEMA_PACKAGES.has(target));
    },
    bad: { path: "schemas/a.ts", text: 'import { readFile } from "node:fs";' },
  },
  {
    name: "only mixins/postgres imports pg",
    check(file) {
      if (isTest(file) || file.path.startsWith("mixins/postgres/")) return [];
      return checkImports(file, target => /^pg($|[-/])/.test(target));
    },
    bad: { path: "services/a/a.service.ts", text: 'import pg from "pg";' },
  },
  {
    name: "only schemas/env.ts reads process.env",
    check(file) {
      const isOtherApp = file.path.startsWith("examples/moleculer-app/");
      if (isTest(file) || isOtherApp || file.path === "schemas/env.ts") return [];
      return find(file, node => isEnvironment(node) && "reads process.env");
    },
    bad: { path: "cli/run.ts", text: "const url = process.env.DATABASE_URL;" },
  },
  {
    name: "a relative import says .ts",
    check: file => checkImports(file, (_, path) => !!path && !/\.(ts|js|json)$/.test(path)),
    bad: { path: "cli/run.ts", text: 'import { x } from "./y";' },
  },
  {
    name: "there are no barrels: no `export *`, no file that only passes on",
    check(file) {
      const passesOn = (node: ts.Statement): boolean =>
        ts.isExportDeclaration(node) && !!node.moduleSpecifier;
      const { statements } = file.tree;
      const isBarrel = statements.length > 0 && statements.every(passesOn);
      const stars = statements.filter(
        node => passesOn(node) && !(node as ts.ExportDeclaration).exportClause,
      );
      return isBarrel ? [`${file.path} only passes on`] : stars.map(node => at(file, node));
    },
    bad: { path: "mixins/index.ts", text: 'export * from "./actor.ts";' },
  },
];

/** The callback of a suite is a list of tests, not a function to be understood at once. */
function isSuite(node: ts.Node): boolean {
  const { parent } = node;
  return (
    ts.isCallExpression(parent) &&
    /^(describe|context|it|before|after)\b/.test(parent.expression.getText())
  );
}

function longFunctions(file: SourceFile): string[] {
  return find(file, node => {
    if (!ts.isFunctionLike(node) || isSuite(node)) return false;
    const first = file.tree.getLineAndCharacterOfPosition(node.getStart(file.tree)).line;
    const lines = file.tree.getLineAndCharacterOfPosition(node.end).line - first + 1;
    return lines > MAX_FUNCTION_LINES && `a function of ${lines} lines`;
  });
}

const sizes: Rule[] = [
  {
    name: `a file has at most ${MAX_LINES} lines, a test ${MAX_TEST_LINES}`,
    check(file) {
      const lines = file.text.split("\n").length - 1;
      const limit = file.path.endsWith(".test.ts") ? MAX_TEST_LINES : MAX_LINES;
      return lines > limit ? [`${file.path} has ${lines} lines`] : [];
    },
    bad: { path: "cli/run.ts", text: "// long\n".repeat(MAX_LINES + 1) },
  },
  {
    name: `a function has at most ${MAX_FUNCTION_LINES} lines`,
    check: longFunctions,
    bad: { path: "cli/run.ts", text: `function long() {${"\n".repeat(MAX_FUNCTION_LINES)}}` },
  },
  {
    name: `a line has at most ${MAX_COLUMNS} columns`,
    check: file =>
      file.text.split("\n").flatMap((line, index) => {
        const columns = [...line].length;
        return columns > MAX_COLUMNS ? [`${file.path}:${index + 1} has ${columns} columns`] : [];
      }),
    bad: { path: "cli/run.ts", text: `// ${"long ".repeat(20)}` },
  },
];

const NAMED_BY_A_TOOL = /^(eslint\.config\.js|moleculer\.config\.ts|test\/support\/reporter\.ts)$/;
const EMPTY_NAMES = /(^|[/.-])(utils?|helpers?|common|managers?|misc)(?=[/.-])/;
// Put together here, so that this file does not contain what it looks for.
const UNFINISHED = new RegExp(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"].join("|"));
const PROVISIONAL = new RegExp(`${"not imple" + "mented"}|${"for n" + "ow"}\\b`, "i");

const style: Rule[] = [
  {
    name: "a file begins with a comment that says its purpose",
    check(file) {
      const text = file.text.replace(/^#!.*\n/, "");
      return /^(\/\/ \S|\/\*\*?\s)/.test(text) ? [] : [file.path];
    },
    bad: { path: "cli/run.ts", text: "const a = 1;" },
  },
  {
    name: "names are kebab-case and mean something",
    check({ path }) {
      const isKebab = path.split("/").every(part => /^\.?[a-z0-9]+([.-][a-z0-9]+)*$/.test(part));
      return isKebab && !EMPTY_NAMES.test(path) ? [] : [path];
    },
    bad: { path: "mixins/stringUtils.ts", text: "" },
  },
  {
    name: "nothing is left unfinished",
    check: file =>
      file.text.split("\n").flatMap((line, index) => {
        const isUnfinished = UNFINISHED.test(line) || PROVISIONAL.test(line);
        return isUnfinished ? [`${file.path}:${index + 1} ${line.trim()}`] : [];
      }),
    bad: { path: "cli/run.ts", text: `// ${"TO" + "DO"}: later` },
  },
  {
    name: "nothing is typed any",
    check: file => find(file, node => node.kind === ts.SyntaxKind.AnyKeyword && "any"),
    bad: { path: "cli/run.ts", text: "let a: any;" },
  },
  {
    name: "types erase: no enum, namespace, decorator or parameter property",
    check: file =>
      find(file, node => {
        if (ts.isEnumDeclaration(node)) return "an enum";
        if (ts.isModuleDeclaration(node) && ts.isIdentifier(node.name) && !isAmbient(node)) {
          return "a namespace";
        }
        if (ts.isDecorator(node)) return "a decorator";
        const isProperty = ts.isParameter(node) && !!node.modifiers?.length;
        return isProperty && "a parameter property";
      }),
    bad: { path: "cli/run.ts", text: "enum Color { Red }" },
  },
  {
    name: "only a service is a default export",
    check(file) {
      if (file.path.endsWith(".service.ts") || NAMED_BY_A_TOOL.test(file.path)) return [];
      return find(file, node => {
        const isDefault = ts.isExportAssignment(node) || node.kind === ts.SyntaxKind.DefaultKeyword;
        return isDefault && !ts.isDefaultClause(node) && "a default export";
      });
    },
    bad: { path: "cli/run.ts", text: "export default 1;" },
  },
];

function isAmbient(node: ts.ModuleDeclaration): boolean {
  return !!node.modifiers?.some(modifier => modifier.kind === ts.SyntaxKind.DeclareKeyword);
}

/** Calls whose answer differs each time: a machine gets such things in its input. */
const IMPURE = /\bDate\.now\(|\bnew Date\(\)|\bMath\.random\(|\brandomUUID\(|\bperformance\.now\(/;

/**
 * What makes a machine less than pure: it and the files of its room that it is spread over import
 * schemas only, no package at all, and never ask the clock or chance.
 */
export function impurities(machine: SourceFile, files: Map<string, SourceFile>): string[] {
  const room = `${posix.dirname(machine.path)}/`;
  const pending = [machine];
  const seen = new Set<SourceFile>();
  const found: string[] = [];
  for (let file = pending.pop(); file; file = pending.pop()) {
    if (seen.has(file)) continue;
    seen.add(file);
    for (const [index, line] of file.text.split("\n").entries()) {
      const isComment = /^\s*(\/?\*|\/\/)/.test(line);
      if (IMPURE.test(line) && !isComment) found.push(`${file.path}:${index + 1} ${line.trim()}`);
    }
    const { dir } = posix.parse(file.path);
    for (const { node, target } of imports(file)) {
      const path = posix.join(dir, target);
      const isOurs = target.startsWith(".");
      if (isOurs && path.startsWith(room)) pending.push(...[files.get(path)].filter(one => !!one));
      else if (!isOurs || !path.startsWith("schemas/")) {
        found.push(`${at(file, node)} imports ${target}`);
      }
    }
  }
  return found;
}

export const rules: Rule[] = [...imported, ...sizes, ...style];
