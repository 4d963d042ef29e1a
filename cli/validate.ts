/** `noetl validate`: what registration would say about files, without a database. */
import { findPython, lackingPython } from "../mixins/python.ts";
import { loadSettings } from "../schemas/env.ts";
import { errorType, formatIssue, rejectIssues } from "../schemas/errors.ts";
import type { Issue } from "../schemas/errors.ts";
import { readPlaybook } from "../schemas/playbook/parse.ts";
import { unknownNames } from "../schemas/playbook/unknown-names.ts";
import { refuseLacking, refuseUnrunnable } from "../schemas/playbook/unrunnable.ts";
import type { Lacking } from "../schemas/playbook/unrunnable.ts";
import { RUNNABLE_KINDS } from "../schemas/tool.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { errorReport } from "./exit.ts";
import { readText } from "./inputs.ts";
import { counted, openScreen, painter, print, printJson } from "./terminal.ts";

interface Verdict {
  file: string;
  valid: boolean;
  path?: string;
  steps?: number;
  warnings: string[];
  issues: Issue[];
}

export interface ValidateOptions {
  json?: boolean;
  /** Refuse also what would fail on this machine for want of a program. */
  strict?: boolean;
}

export async function validate(files: string[], options: ValidateOptions): Promise<ExitCode> {
  const lacking = options.strict ? await lackingHere() : {};
  const verdicts: Verdict[] = [];
  for (const file of files) verdicts.push(await judge(file, lacking));
  if (options.json) printJson({ files: verdicts });
  else print(verdicts.flatMap(linesOf).join("\n"));
  return verdicts.every(verdict => verdict.valid) ? EXIT.completed : EXIT.refused;
}

async function lackingHere(): Promise<Lacking> {
  const { pythonTool, pythonEnvironment: environment } = loadSettings();
  const found = await findPython({ command: pythonTool.command, environment });
  return lackingPython("problem" in found ? found.problem : undefined);
}

async function judge(file: string, lacking: Lacking): Promise<Verdict> {
  try {
    const read = readPlaybook(await readText(file), { file });
    const { playbook } = read;
    const issues = [
      ...refuseUnrunnable(playbook, RUNNABLE_KINDS, read),
      ...refuseLacking(playbook, lacking, read),
    ];
    if (issues.length > 0) throw rejectIssues(issues, "the playbook cannot run here");
    const warnings = [...playbook.warnings, ...unknownNames(playbook, read)];
    const steps = Object.keys(playbook.steps).length;
    return { file, valid: true, path: playbook.path, steps, warnings, issues: [] };
  } catch (error) {
    if (errorType(error) !== "REJECTED") throw error;
    const { issues, message } = errorReport(error).error;
    return { file, valid: false, warnings: [], issues: issues ?? [{ message }] };
  }
}

function linesOf({ file, valid, path, steps, warnings, issues }: Verdict): string[] {
  const paint = painter(openScreen(process.stdout).colored);
  const head = valid
    ? `${paint("✔", "green")} ${file}  ${path ?? ""}, ${counted(steps ?? 0, "step")}`
    : `${paint("✘", "red")} ${file}  ${counted(issues.length, "problem")}`;
  return [
    head,
    ...issues.map(issue => `    ${formatIssue(issue)}`),
    ...warnings.map(warning => `    ${paint("warning", "yellow")} ${warning}`),
  ];
}
