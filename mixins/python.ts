/** Which Python runs the code of playbooks: found by asking it who it is. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Lacking } from "../schemas/playbook/unrunnable.ts";

/** The oldest that runs our runner. */
const VERSION_MIN = [3, 8] as const;
/** A shim that has to look around answers within this. */
const ANSWER_MS = 15_000;
const ASK = "import json, sys; print(json.dumps([sys.executable, list(sys.version_info[:3])]))";

export const PYTHON_REMEDY = "install Python 3.8 or newer, or set NOETL_PYTHON to its path";

export interface PythonPlace {
  /** `NOETL_PYTHON`; absent: `python3` on the PATH. */
  command?: string | undefined;
  /** What the interpreter gets as its environment; its PATH is the one that is searched. */
  environment: Record<string, string>;
}

export interface Python {
  /** Of the interpreter itself, behind any shim. */
  path: string;
  version: string;
}

/** The interpreter, or one sentence that says why there is none. */
export type PythonSearch = { python: Python } | { problem: string };

/** As registration and validation say it when they are strict. */
export function lackingPython(problem: string | undefined): Lacking {
  if (problem === undefined) return {};
  return { python: { message: `python cannot run: ${problem}`, hint: PYTHON_REMEDY } };
}

const run = promisify(execFile);

/** Looks for Python 3.8 or newer. Never throws for one that is absent, broken or too old. */
export async function findPython({ command, environment }: PythonPlace): Promise<PythonSearch> {
  const name = command ?? "python3";
  const called = command === undefined ? "python3" : `NOETL_PYTHON '${command}'`;
  if (process.platform === "win32") return { problem: "python tasks need Linux or macOS" };
  let answer: string;
  try {
    const options = { env: environment, timeout: ANSWER_MS, killSignal: "SIGKILL" as const };
    answer = (await run(name, ["-c", ASK], options)).stdout;
  } catch (error) {
    const { code, killed } = error as { code?: string | number; killed?: boolean };
    if (code === "ENOENT" && command === undefined) return { problem: "no python3 on the PATH" };
    const why = killed ? `no answer in ${ANSWER_MS / 1_000} s` : String(code ?? "it was killed");
    return { problem: `${called} cannot be run (${why})` };
  }
  return judge(called, answer);
}

function judge(called: string, answer: string): PythonSearch {
  let path: unknown;
  let version: unknown;
  try {
    [path, version] = JSON.parse(answer.trim().split("\n").at(-1) ?? "") as unknown[];
  } catch {
    return { problem: `${called} is no Python interpreter` };
  }
  if (typeof path !== "string" || path === "" || !Array.isArray(version)) {
    return { problem: `${called} is no Python interpreter` };
  }
  const [major = 0, minor = 0] = version as number[];
  const [least, leastMinor] = VERSION_MIN;
  const text = version.join(".");
  if (major < least || (major === least && minor < leastMinor)) {
    return { problem: `${called} is Python ${text}, too old` };
  }
  return { python: { path, version: text } };
}
