/** What `noetl doctor` looks at in this process and on this machine: versions, settings, files. */
import { access, constants, mkdtemp, readFile, rm, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { ServiceBroker } from "moleculer";
import { request } from "undici";
import { parseDocument } from "yaml";
import { findPython, PYTHON_REMEDY } from "../mixins/python.ts";
import { writesToFolder } from "../mixins/result-store/open.ts";
import { packageVersion } from "../mixins/version.ts";
import { databaseUrl } from "../schemas/env.ts";
import type { Settings } from "../schemas/env.ts";
import { isObject } from "../schemas/json.ts";
import { examine, fail, ok, warn } from "./check.ts";
import type { Check } from "./check.ts";

/** The oldest that runs our TypeScript, and the Moleculer whose protocol we speak. */
const NODE_MIN = "22.18.0";
const MOLECULER_MIN = "0.15.0";
/** Free space below the first makes a warning, below the second nothing durable should start. */
const FREE_WARN_BYTES = 1_073_741_824;
const FREE_FAIL_BYTES = 104_857_600;
const SERVER_ANSWER_MS = 5_000;

export function checkVersions(
  node = process.versions.node,
  moleculer = String(ServiceBroker.MOLECULER_VERSION),
): Check[] {
  const found = `noetl ${packageVersion()}, node ${node}, moleculer ${moleculer}`;
  if (isOlder(node, NODE_MIN)) {
    return [fail("versions", found, `use Node ${NODE_MIN} or newer; npm brings one along`)];
  }
  if (isOlder(moleculer, MOLECULER_MIN)) {
    const remedy = `use moleculer ${MOLECULER_MIN} or newer: nodes of older ones are not heard`;
    return [fail("versions", found, remedy)];
  }
  return [ok("versions", found)];
}

/** Whether version `a` comes before `b`; what is not a number counts as 0. */
export function isOlder(a: string, b: string): boolean {
  const parts = (version: string) => version.split(/[.-]/).map(part => Number(part) || 0);
  const [left, right] = [parts(a), parts(b)];
  const at = right.findIndex((part, index) => part !== (left[index] ?? 0));
  return at >= 0 && (left[at] ?? 0) < (right[at] ?? 0);
}

/** The interpreter of python tasks. A machine without one is fine, unless one is named for it. */
export async function checkPython(settings: Settings): Promise<Check> {
  const { command } = settings.pythonTool;
  const found = await findPython({ command, environment: settings.pythonEnvironment });
  if ("python" in found) return ok("python", `${found.python.version}, ${found.python.path}`);
  const problem = `python tasks cannot run here: ${found.problem}`;
  return (command === undefined ? warn : fail)("python", problem, PYTHON_REMEDY);
}

/** What stands in the environment; values that contradict each other were refused before. */
export function checkSettings({ sources, unknownVariables, worker }: Settings): Check[] {
  const set = Object.values(sources).filter(source => source === "environment").length;
  const caps = `${worker.maxInflight} in flight, ${worker.maxInflightDb} of them with a database`;
  const found = `${set} set in the environment; ${caps}`;
  const misspelt = unknownVariables.map(name =>
    warn("settings", `${name} is not a setting`, "noetl config lists all of them"),
  );
  return [ok("settings", found), ...misspelt];
}

/** The key that stored credentials are sealed with. `sealed` counts those in the database. */
export function checkKeys(settings: Settings, sealed: number): Check {
  if (settings.credentials.encryptionKey) {
    return ok("keys", `an encryption key is set; ${sealed} sealed in the database`);
  }
  if (databaseUrl(settings) === undefined) return ok("keys", "kept beside the embedded database");
  const remedy = "set NOETL_ENCRYPTION_KEY, the same for all: openssl rand -base64 32";
  return sealed > 0
    ? fail("keys", `no encryption key, and ${sealed} sealed in the database`, remedy)
    : warn("keys", "no encryption key: credentials cannot be stored", remedy);
}

/** Folders are tried where they are, or where they would be made. */
export async function checkFolders(settings: Settings): Promise<Check[]> {
  const folder = resolve(settings.node.dataDir);
  const { file } = settings.credentials;
  const inFolder = writesToFolder(settings);
  const needed = inFolder || databaseUrl(settings) === undefined;
  return [
    ...(await examine("data", () =>
      needed ? checkFolder("data", folder) : ok("data", "no folder is needed beside the database"),
    )),
    ...(await examine("results", () =>
      inFolder
        ? checkFolder("results", join(folder, "results"))
        : ok("results", "large ones go to the database"),
    )),
    ...(file === undefined ? [] : await examine("credentials", () => checkAliases(file))),
  ];
}

async function checkFolder(name: string, folder: string): Promise<Check> {
  const remedy = "set NOETL_DATA_DIR to a folder that can be written to";
  const place = await nearest(folder);
  if (!(await stat(place)).isDirectory()) return fail(name, `${place} is not a folder`, remedy);
  const refusal = await tryWriting(place);
  if (refusal !== undefined) return fail(name, `${place} cannot be written to: ${refusal}`, remedy);
  const { bavail, bsize } = await statfs(place);
  return judgeSpace(name, place === folder ? folder : `${folder} (not made yet)`, bavail * bsize);
}

export function judgeSpace(name: string, folder: string, freeBytes: number): Check {
  const free = `${(freeBytes / 1_073_741_824).toFixed(1)} GiB free`;
  const found = `${folder} can be written to, ${free}`;
  if (freeBytes >= FREE_WARN_BYTES) return ok(name, found);
  const remedy = "make room: results and the embedded database live there";
  return freeBytes < FREE_FAIL_BYTES ? fail(name, found, remedy) : warn(name, found, remedy);
}

/** The folder, or the deepest one above it that exists. */
async function nearest(folder: string): Promise<string> {
  for (let place = folder; ; place = dirname(place)) {
    const there = await access(place).then(
      () => true,
      () => false,
    );
    if (there || place === dirname(place)) return place;
  }
}

/** The code of what goes wrong. Permissions do not tell that a file system is read-only. */
async function tryWriting(folder: string): Promise<string | undefined> {
  try {
    await access(folder, constants.W_OK | constants.X_OK);
    await rm(await mkdtemp(join(folder, ".doctor-")), { recursive: true });
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "unknown";
  }
}

/** The operator's file of aliases: names are shown, values never. */
async function checkAliases(file: string): Promise<Check> {
  const remedy = "expected a JSON or YAML map of alias to {type, data}: NOETL_CREDENTIALS_FILE";
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const { code = "unreadable" } = error as NodeJS.ErrnoException;
    return fail("credentials", `${file} cannot be read (${code})`, remedy);
  }
  const document = parseDocument(text, { prettyErrors: false });
  const value: unknown = document.errors.length > 0 ? undefined : document.toJS();
  if (!isObject(value)) return fail("credentials", `${file} is not a map`, remedy);
  const bad = Object.entries(value).filter(([, entry]) => !isAlias(entry));
  if (bad.length > 0) {
    const names = bad.map(([name]) => `'${name}'`).join(", ");
    return fail("credentials", `${file}: ${names} cannot be used`, remedy);
  }
  const found = `${file}, ${Object.keys(value).length} aliases`;
  const open = process.platform !== "win32" && ((await stat(file)).mode & 0o077) !== 0;
  return open
    ? warn("credentials", `${found}, and others may read it`, `chmod 600 ${file}`)
    : ok("credentials", found);
}

function isAlias(entry: unknown): boolean {
  return isObject(entry) && typeof entry["type"] === "string" && isObject(entry["data"]);
}

/** The servers that this command line, or a worker without NATS, would ask. */
export async function checkServers({ http }: Settings): Promise<Check[]> {
  const urls = (http.serverUrl ?? "").split(",").filter(url => url !== "");
  return Promise.all(urls.map(url => checkServer(url.trim().replace(/\/+$/, ""))));
}

async function checkServer(url: string): Promise<Check> {
  const remedy = `is it running? See ${url}/health`;
  try {
    const answer = await request(`${url}/health`, {
      headersTimeout: SERVER_ANSWER_MS,
      bodyTimeout: SERVER_ANSWER_MS,
    });
    const health = (await answer.body.json()) as { status?: string; version?: string };
    const found = `${url} says ${health.status ?? answer.statusCode}`;
    if (health.status !== "ok") return fail("server", found, remedy);
    return ok("server", `${found}, version ${health.version ?? "unknown"}`);
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    return fail("server", `${url} cannot be reached: ${code ?? message}`, remedy);
  }
}
