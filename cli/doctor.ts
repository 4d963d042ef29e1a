/** `noetl doctor`: read-only checks of what a runtime stands on, each with its remedy. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { dataFolder } from "../mixins/postgres/embedded-cluster.ts";
import { joinEmbedded } from "../mixins/postgres/embedded.ts";
import { openDatabase } from "../mixins/postgres/index.ts";
import { databaseUrl, loadSettings } from "../schemas/env.ts";
import type { Settings } from "../schemas/env.ts";
import { errorType, formatIssue } from "../schemas/errors.ts";
import { checkLines, examine, fail, ok } from "./check.ts";
import type { Check } from "./check.ts";
import type { GlobalOptions } from "./context.ts";
import { checkDatabase } from "./doctor-database.ts";
import {
  checkFolders,
  checkKeys,
  checkPython,
  checkServers,
  checkSettings,
  checkVersions,
} from "./doctor-here.ts";
import { checkGate } from "./doctor-gate.ts";
import { checkNats } from "./doctor-nats.ts";
import { errorReport, EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { openScreen, print, printJson } from "./terminal.ts";

/** A person waits: a database that is slower than this to let us in counts as out of reach. */
const CONNECT_MS = 10_000;

interface Diagnosis {
  checks: Check[];
  /** There is a database to ask, and it does not answer. */
  unreachable: boolean;
}

/** Exit code 0 when nothing fails, 1 when something does, 3 when the database is out of reach. */
export async function doctor(options: GlobalOptions): Promise<ExitCode> {
  const { checks, unreachable } = await diagnose(options);
  const failed = checks.some(check => check.state === "fail");
  if (options.json) printJson({ ok: !failed, checks });
  else print(checkLines(checks, openScreen(process.stdout).colored).join("\n"));
  if (unreachable) return EXIT.unavailable;
  return failed ? EXIT.failed : EXIT.completed;
}

async function diagnose({ serverUrl }: GlobalOptions): Promise<Diagnosis> {
  const versions = checkVersions();
  let settings: Settings;
  try {
    settings = loadSettings();
  } catch (error) {
    // Without settings nothing else can be looked for.
    return { checks: [...versions, ...refusedSettings(error)], unreachable: false };
  }
  if (serverUrl !== undefined) settings.http.serverUrl = serverUrl;
  const database = await checkStore(settings);
  const checks = [
    ...versions,
    ...checkSettings(settings),
    ...(await examine("python", () => checkPython(settings))),
    ...(await checkFolders(settings)),
    ...(await examine("keys", () => checkKeys(settings, database.sealed))),
    ...database.checks,
    ...(await examine("gate", () => checkGate(settings))),
    ...(await examine("nats", () => checkNats(settings))),
    ...(await examine("server", () => checkServers(settings))),
  ];
  return { checks, unreachable: database.unreachable };
}

function refusedSettings(error: unknown): Check[] {
  const { issues, message } = errorReport(error).error;
  if (errorType(error) !== "REJECTED" || !issues) throw error;
  const remedy = "correct the variable; noetl config lists all of them";
  const texts = issues.length > 0 ? issues.map(formatIssue) : [message];
  return texts.map(text => fail("settings", text, remedy));
}

/** The store that a start with these settings would use. `sealed` counts credentials kept in it. */
async function checkStore(settings: Settings): Promise<Diagnosis & { sealed: number }> {
  const given = databaseUrl(settings);
  const { dataDir } = settings.node;
  if (given === undefined && !existsSync(dataFolder(resolve(dataDir)).cluster)) {
    const found = `embedded, not made yet: the first run makes it in ${dataDir}/`;
    return { checks: [ok("database", found)], unreachable: false, sealed: 0 };
  }
  let embedded;
  try {
    embedded = given === undefined ? await joinEmbedded(dataDir) : undefined;
    return await checkUrl(given ?? embedded?.url ?? "", settings);
  } catch (error) {
    if (!["UNAVAILABLE", "REJECTED"].includes(errorType(error))) throw error;
    const remedy = "is it running, and is DATABASE_URL right? noetl config shows what is set";
    const { message } = errorReport(error).error;
    return { checks: [fail("database", message, remedy)], unreachable: true, sealed: 0 };
  } finally {
    await embedded?.leave();
  }
}

async function checkUrl(url: string, settings: Settings): Promise<Diagnosis & { sealed: number }> {
  const database = openDatabase({
    ...{ url, size: 1, connectTimeoutMs: CONNECT_MS, queryTimeoutMs: CONNECT_MS },
  });
  try {
    const found = await checkDatabase(database, { url, settings });
    return { ...found, unreachable: false };
  } finally {
    await database.close();
  }
}
