/** `noetl register`: playbooks into the catalog, one file or a whole folder. */
import { errorType, Rejected } from "../schemas/errors.ts";
import type { Backend } from "./backend.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { errorLines, errorReport, EXIT } from "./exit.ts";
import type { ErrorReport, ExitCode } from "./exit.ts";
import { isPlaybook, listYamlFiles, readText } from "./inputs.ts";
import { openScreen, painter, print, printJson } from "./terminal.ts";

export interface RegisterOptions extends GlobalOptions {
  directory?: string;
  /** Refuse also what would fail for want of a program. */
  strict?: boolean;
}

interface Registered {
  path: string;
  version: number;
  hash: string;
  created: boolean;
  warnings?: string[];
}

type Entry = { file: string } & (Registered | ErrorReport);

/** Each file stands alone: a refused one creates nothing and does not stop the others. */
export async function register(files: string[], options: RegisterOptions): Promise<ExitCode> {
  const playbooks = await readAll(files, options.directory);
  return withBackend(options, ["client"], async backend => {
    const entries: Entry[] = [];
    const { strict = false } = options;
    for (const one of playbooks) entries.push(await add(backend, { ...one, strict }));
    if (options.json) printJson({ playbooks: entries });
    else print(entries.flatMap(linesOf).join("\n"));
    return entries.some(entry => "error" in entry) ? EXIT.refused : EXIT.completed;
  });
}

async function readAll(files: string[], folder: string | undefined) {
  const listed = folder === undefined ? [] : await listYamlFiles(folder);
  const playbooks: { file: string; content: string }[] = [];
  for (const file of files) playbooks.push({ file, content: await readText(file) });
  for (const file of listed) {
    const content = await readText(file);
    if (isPlaybook(content)) playbooks.push({ file, content });
  }
  if (playbooks.length > 0) return playbooks;
  const where = folder === undefined ? "name a FILE, or a folder with -d" : `none in ${folder}`;
  throw new Rejected(`There is no playbook to register: ${where}`);
}

async function add(
  backend: Backend,
  playbook: { file: string; content: string; strict: boolean },
): Promise<Entry> {
  const { file, content, strict } = playbook;
  // A server of an earlier build knows no `strict`: it is not told of one that is not asked for.
  const params = { content, file, ...(strict && { strict }) };
  try {
    return { file, ...(await backend.call<Registered>("catalog.register", params)) };
  } catch (error) {
    if (errorType(error) !== "REJECTED") throw error;
    return { file, ...errorReport(error) };
  }
}

function linesOf(entry: Entry): string[] {
  const paint = painter(openScreen(process.stdout).colored);
  if ("error" in entry) {
    const { message, issues } = entry.error;
    const [head = "", ...rest] = errorLines({ message, type: "REJECTED", data: { issues } });
    return [`${paint("✘", "red")} ${entry.file}  ${head}`, ...rest.map(line => `  ${line}`)];
  }
  const news = entry.created ? "" : ", unchanged";
  return [
    `${paint("✔", "green")} ${entry.path}  version ${entry.version}${news}`,
    ...(entry.warnings ?? []).map(warning => `    ${paint("warning", "yellow")} ${warning}`),
  ];
}
