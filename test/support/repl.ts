// A `noetl repl` that a test types into: through a pipe, or on a terminal of its own.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { atEnd } from "./hooks.ts";
import { ROOT } from "./source-files.ts";

export interface TypedRepl {
  /** Types a text; a line needs its "\n", a key is its control character. */
  type(text: string): void;
  /** Waits for this among what was said since the match before; fails after `limitMs`. */
  says(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray>;
  /** Closes the pipe, as the end of a script does. */
  end(): void;
  readonly said: string;
  readonly ended: Promise<number | null>;
  kill(): void;
}

const ENTRY = join(ROOT, "cli", "noetl.ts");
export const CTRL_C = "\u0003";
export const CTRL_D = "\u0004";

/** `script` of util-linux gives a program a terminal; undefined where there is none. */
export function hasTerminal(): boolean {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return process.platform === "linux" && folders.some(one => existsSync(join(one, "script")));
}

/** Begins one, or another program with a REPL, through a pipe. */
export function typeThroughPipe(
  env: Record<string, string>,
  program: string[] = [ENTRY, "repl"],
): TypedRepl {
  return watched(process.execPath, program, env);
}

/** Begins one on a terminal; `after` is a shell command that runs there when it has ended. */
export function typeOnTerminal(env: Record<string, string>, after: string): TypedRepl {
  const command = `'${process.execPath}' '${ENTRY}' repl; echo "left with $?"; ${after}`;
  return watched("script", ["-qec", command, "/dev/null"], {
    TERM: "xterm",
    NO_COLOR: "1",
    ...env,
  });
}

function watched(program: string, args: string[], env: Record<string, string>): TypedRepl {
  const child = spawn(program, args, {
    cwd: env["NOETL_DATA_DIR"] ?? ROOT,
    env: { PATH: process.env["PATH"], HOME: env["NOETL_DATA_DIR"], ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const kill = () => void child.kill("SIGKILL");
  process.once("exit", kill);
  atEnd(async () => kill());
  let said = "";
  let seen = 0;
  let listener = () => {};
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      listener();
    });
  }
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject).once("close", code => {
      process.off("exit", kill);
      resolve(code);
      listener();
    });
  });
  return {
    type: text => void child.stdin.write(text),
    end: () => void child.stdin.end(),
    get said() {
      return said;
    },
    says: (pattern, limitMs = 30_000) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(fail, limitMs);
        function fail(): void {
          listener = () => {};
          clearTimeout(timer);
          reject(new Error(`did not say ${pattern}; it said:\n${said.slice(seen)}`));
        }
        listener = () => {
          const found = pattern.exec(said.slice(seen));
          if (found) {
            seen += found.index + found[0].length;
            listener = () => {};
            clearTimeout(timer);
            resolve(found);
          } else if (child.exitCode !== null) fail();
        };
        listener();
      }),
    ended,
    kill,
  };
}
