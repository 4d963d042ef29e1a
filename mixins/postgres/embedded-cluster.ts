// The Postgres data of one data folder: made once (initdb), checked at each start, given a
// password.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, chown, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { cleanEnvironment, commandLine, execute, type Runner } from "./embedded-binaries.ts";

/** The one database that noetl uses in the embedded server. */
export const DATABASE = "noetl";

/** The files of a data folder. */
export interface DataFolder {
  root: string;
  cluster: string;
  password: string;
  port: string;
  log: string;
}

export function dataFolder(root: string): DataFolder {
  return {
    root,
    cluster: join(root, "postgres"),
    password: join(root, "postgres.password"),
    port: join(root, "postgres.port"),
    log: join(root, "postgres.log"),
  };
}

/**
 * Makes the cluster when there is none and returns the password of user `postgres`. The caller
 * holds the folder's lock. Throws Rejected when the data belongs to another major version,
 * Unavailable when the disk or initdb refuses. `durable: false` skips the fsync of the new files
 * (tests).
 */
export async function prepareCluster(
  folder: DataFolder,
  runner: Runner,
  options: { durable?: boolean } = {},
): Promise<string> {
  if (runner.owner) await chmod(folder.root, 0o711);
  const version = await readFile(join(folder.cluster, "PG_VERSION"), "utf8").catch(() => undefined);
  if (version !== undefined) {
    checkVersion(folder, Number(version), runner.major);
    return existingPassword(folder, runner);
  }
  await removeHalfMade(folder);
  const password = await newPassword(folder);
  const half = `${folder.cluster}.new-${randomBytes(4).toString("hex")}`;
  if (runner.owner) await ownedFolder(half, runner.owner);
  try {
    await initialise(half, password, runner, options.durable ?? true);
    await rename(half, folder.cluster);
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new Unavailable(
      `could not create the database files in ${folder.root}: ${stderr?.trim() || message}; ` +
        "set NOETL_DATA_DIR to another folder, or DATABASE_URL to a Postgres of your own",
    );
  }
  return password;
}

/**
 * Made under another name and renamed: a killed initdb leaves nothing that looks like a cluster.
 */
async function initialise(
  half: string,
  password: string,
  runner: Runner,
  durable: boolean,
): Promise<void> {
  const passwordFile = `${half}.pw`;
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (runner.owner) await chown(passwordFile, runner.owner.uid, runner.owner.gid);
  const sync = process.platform === "linux" ? ["--sync-method=syncfs"] : [];
  await execute(runner, "initdb", [
    ...["-D", half, "-U", "postgres", "-A", "scram-sha-256", `--pwfile=${passwordFile}`],
    ...["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
    ...["--no-instructions", ...(durable ? sync : ["--no-sync"])],
  ]);
  await singleUser(half, runner, `CREATE DATABASE ${DATABASE}`);
  await rm(passwordFile);
}

function checkVersion(folder: DataFolder, found: number, ours: number): void {
  if (found === ours) return;
  throw new Rejected(
    `${folder.cluster} was made by Postgres ${found}, this noetl brings Postgres ${ours}; ` +
      `start Postgres ${found} on it to dump what you need, or set NOETL_DATA_DIR to a new folder`,
    409,
  );
}

async function removeHalfMade(folder: DataFolder): Promise<void> {
  for (const name of await readdir(folder.root)) {
    if (!name.startsWith("postgres.new-")) continue;
    // A child of the killed initdb may still be writing. What stays is removed by the next start.
    const thorough = { recursive: true, force: true, maxRetries: 5, retryDelay: 50 };
    await rm(join(folder.root, name), thorough).catch(() => undefined);
  }
}

async function existingPassword(folder: DataFolder, runner: Runner): Promise<string> {
  const password = await readFile(folder.password, "utf8").catch(() => "");
  if (password) return password;
  // Somebody removed the file. The files of the cluster are ours, so we may set a new password.
  const fresh = await newPassword(folder);
  await singleUser(folder.cluster, runner, `ALTER ROLE postgres PASSWORD '${fresh}'`);
  return fresh;
}

async function newPassword(folder: DataFolder): Promise<string> {
  const password = randomBytes(18).toString("base64url");
  await writeFile(folder.password, password, { mode: 0o600 });
  return password;
}

async function ownedFolder(path: string, owner: { uid: number; gid: number }): Promise<void> {
  await mkdir(path, { mode: 0o700 });
  await chown(path, owner.uid, owner.gid);
}

/** One statement without a server, on data that nobody has open. */
async function singleUser(cluster: string, runner: Runner, statement: string): Promise<void> {
  const [command, ...args] = commandLine(runner, "postgres", [
    "--single",
    "-D",
    cluster,
    "postgres",
  ]);
  const child = spawn(command!, args, {
    ...runner.owner,
    env: cleanEnvironment(),
    stdio: ["pipe", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.stdin.on("error", () => undefined); // The exit code tells.
  child.stdin.end(`${statement};\n`);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject).once("close", resolve);
  });
  if (code !== 0 || /^.*(ERROR|FATAL|PANIC):/m.test(stderr)) {
    throw new Error(stderr.trim().split("\n").at(-1) ?? `postgres --single ended with ${code}`);
  }
}
