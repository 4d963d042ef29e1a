/**
 * The only reader of process.env: parsed once into typed settings, refused with names, never
 * values.
 */
import { Rejected } from "./errors.ts";
import type { Issue } from "./errors.ts";
import { isSecretName } from "./secret-names.ts";
import { gateRules } from "./prefetch-settings.ts";
import type { Setting } from "./setting.ts";
import { SETTINGS } from "./settings.ts";

type Table = typeof SETTINGS;
type ValueOf<S> = S extends Setting<infer T> ? T : never;
export type SettingSource = "environment" | "default";

/** Values by section, as `SETTINGS` lists them; durations in milliseconds. */
export type SettingValues = {
  -readonly [Section in keyof Table]: {
    -readonly [Name in keyof Table[Section]]: ValueOf<Table[Section][Name]>;
  };
};

export type Settings = SettingValues & {
  /** `NOETL_CREDENTIAL_<ALIAS>`: lower-case alias to its JSON text. Read by `credentials` only. */
  credentialVariables: Record<string, string>;
  /** What python tasks see of the environment. */
  pythonEnvironment: Record<string, string>;
  /** Where each variable's value came from. */
  sources: Record<string, SettingSource>;
  /** `NOETL_*` variables that mean nothing here: usually misspelt, so the start says so. */
  unknownVariables: string[];
};

export interface SettingLine {
  name: string;
  /** As one would write it; `***` for a secret that is set, empty when absent. */
  value: string;
  source: SettingSource;
  doc: string;
}

type Environment = Record<string, string | undefined>;

/** Settings given in code, by their environment names. */
export type SettingRecord = {
  [name: `${"NOETL" | "NATS" | "POSTGRES" | "DATABASE" | "DB"}_${string}`]:
    string | number | boolean | undefined;
};

const CREDENTIAL_PREFIX = "NOETL_CREDENTIAL_";
/** What Kubernetes adds for a service called `noetl`; not ours, and no typing mistake. */
const SERVICE_LINK = /_(SERVICE_(HOST|PORT.*)|PORT_\d+_.*)$/;

/**
 * Reads and checks every setting. An empty variable counts as absent; what is `given` in code wins.
 * Throws Rejected 422 with one issue per variable; the value of a secret is in none of them.
 */
export function loadSettings(
  environment: Environment = process.env,
  given: SettingRecord = {},
): Settings {
  const issues: Issue[] = unknownNames(given);
  const env = { ...environment, ...asEnvironment(given) };
  const sources: Record<string, SettingSource> = {};
  const values: Record<string, Record<string, unknown>> = {};
  for (const [section, fields] of Object.entries(SETTINGS)) {
    const target: Record<string, unknown> = {};
    values[section] = target;
    for (const [name, field] of Object.entries(fields) as [string, Setting<unknown>][]) {
      const given = lookUp(env, field);
      sources[field.variable] = given ? "environment" : "default";
      target[name] = given ? parsed(field, given, issues) : field.fallback;
    }
  }
  const settings = {
    ...(values as SettingValues),
    credentialVariables: credentialVariables(env, issues),
    pythonEnvironment: programEnvironment(env, (values as SettingValues).pythonTool.pass),
    sources,
    unknownVariables: unknownVariables(env),
  };
  if (issues.length === 0) issues.push(...contradictions(settings));
  if (issues.length > 0) throw refused(issues);
  return settings;
}

function asEnvironment(given: SettingRecord): Environment {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries.map(([name, value]) => [name, String(value)]));
}

/** In an environment others may have left such a variable; in code it is a mistake. */
function unknownNames(given: SettingRecord): Issue[] {
  const known = knownVariables();
  return Object.keys(given)
    .filter(name => !known.has(name) && !name.startsWith(CREDENTIAL_PREFIX))
    .map(field => {
      return { field, message: "there is no such setting", expected: "a name of 'noetl config'" };
    });
}

/** Every setting with the value in effect and where it came from: what `noetl config` prints. */
export function describeSettings(settings: Settings): SettingLine[] {
  const lines: SettingLine[] = [];
  for (const [section, fields] of Object.entries(SETTINGS)) {
    const values = settings[section as keyof Table] as Record<string, unknown>;
    for (const [name, field] of Object.entries(fields) as [string, Setting<unknown>][]) {
      const shown = values[name] === undefined ? "" : field.show(values[name]);
      const value = field.secret && shown !== "" ? "***" : shown;
      const source = settings.sources[field.variable] ?? "default";
      lines.push({ name: field.variable, value, source, doc: field.doc });
    }
  }
  for (const alias of Object.keys(settings.credentialVariables)) {
    const name = CREDENTIAL_PREFIX + alias.toUpperCase();
    lines.push({ name, value: "***", source: "environment", doc: `Credential ${alias}` });
  }
  return lines;
}

/**
 * The store's URL: `DATABASE_URL`, else made of `POSTGRES_*`, else undefined: start the embedded
 * one.
 */
export function databaseUrl({ database }: Pick<SettingValues, "database">): string | undefined {
  if (database.url || !database.host) return database.url;
  const password = database.password ? `:${encodeURIComponent(database.password)}` : "";
  const user = `${encodeURIComponent(database.user)}${password}`;
  // An IPv6 address needs brackets inside a URL.
  const host = database.host.includes(":") ? `[${database.host}]` : database.host;
  return `postgres://${user}@${host}:${database.port}/${encodeURIComponent(database.name)}`;
}

/** What any program needs of an environment. */
const NEEDED = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/** Names that settings and secrets of the runtime have. */
const OURS = /^(NOETL|NATS|POSTGRES|DATABASE)_/;

/**
 * The part of an environment that user programs are given, with what the operator adds to it. What
 * any program needs is taken from this process where settings come from elsewhere.
 */
export function programEnvironment(
  env: Environment = process.env,
  added: readonly string[] = [],
): Record<string, string> {
  const asked = added.filter(name => !OURS.test(name)).map(name => [name, env[name]] as const);
  const needed = NEEDED.map(name => [name, env[name] ?? process.env[name]] as const);
  const entries = [...needed, ...asked];
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => !!entry[1]));
}

/** Whether the shell asks for no colour, and whether this is a build machine without a reader. */
export function terminalWishes(env: Environment = process.env): { noColor: boolean; ci: boolean } {
  return { noColor: Boolean(env["NO_COLOR"]) || env["TERM"] === "dumb", ci: Boolean(env["CI"]) };
}

function lookUp(env: Environment, field: Setting<unknown>) {
  for (const variable of [field.variable, ...field.aliases]) {
    const value = env[variable]?.trim();
    if (value) return { variable, value };
  }
  return undefined;
}

function parsed(
  field: Setting<unknown>,
  given: { variable: string; value: string },
  issues: Issue[],
): unknown {
  const result = field.schema.safeParse(given.value);
  if (result.success) return result.data;
  const seen = field.secret ? "the value cannot be used" : `${quoted(given.value)} cannot be used`;
  const issue: Issue = { field: given.variable, message: seen, expected: field.expected };
  if (given.value.startsWith("tcp://")) {
    issue.hint = "Kubernetes sets this for a service of that name: use enableServiceLinks: false";
  }
  issues.push(issue);
  return field.fallback;
}

function quoted(value: string): string {
  const longest = 60;
  return JSON.stringify(value.length > longest ? `${value.slice(0, longest)}…` : value);
}

function credentialVariables(env: Environment, issues: Issue[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(CREDENTIAL_PREFIX) || !value?.trim()) continue;
    if (isJsonObject(value)) found[name.slice(CREDENTIAL_PREFIX.length).toLowerCase()] = value;
    else {
      const expected = 'JSON: {"type": "postgres", "data": {…}}';
      issues.push({ field: name, message: "the value is not a JSON object", expected });
    }
  }
  return found;
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

function knownVariables(): ReadonlySet<string> {
  const known = new Set<string>();
  for (const fields of Object.values(SETTINGS)) {
    for (const field of Object.values(fields) as Setting<unknown>[]) known.add(field.variable);
  }
  return known;
}

function unknownVariables(env: Environment): string[] {
  const known = knownVariables();
  return Object.keys(env)
    .filter(name => name.startsWith("NOETL_") && !name.startsWith(CREDENTIAL_PREFIX))
    .filter(name => !known.has(name) && !SERVICE_LINK.test(name))
    .sort();
}

/** Values that are fine alone and wrong together. */
function contradictions(settings: SettingValues): Issue[] {
  const { worker, command, postgresTool, nats, httpTool, http, starts } = settings;
  const { pythonTool, events, prefetch } = settings;
  const rules: [boolean, string, string][] = [
    [
      worker.maxInflightDb < worker.maxInflight || worker.maxInflight === 1,
      "NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS",
      `less than NOETL_WORKER_MAX_INFLIGHT_COMMANDS (${worker.maxInflight})`,
    ],
    [
      worker.maxAckPending >= worker.maxInflight,
      "NOETL_WORKER_NATS_MAX_ACK_PENDING",
      `at least NOETL_WORKER_MAX_INFLIGHT_COMMANDS (${worker.maxInflight})`,
    ],
    [
      worker.fetchHeartbeatMs * 2 < worker.fetchTimeoutMs,
      "NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS",
      "less than half of NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS",
    ],
    [
      worker.beatMs * 2 <= command.leaseMs,
      "NOETL_WORKER_BEAT_SECONDS",
      "at most half of NOETL_COMMAND_LEASE_SECONDS",
    ],
    [
      command.heartbeatTimeoutMs >= command.leaseMs,
      "NOETL_COMMAND_HEARTBEAT_TIMEOUT_SECONDS",
      "at least NOETL_COMMAND_LEASE_SECONDS",
    ],
    [
      postgresTool.poolMin <= postgresTool.poolMax,
      "NOETL_POSTGRES_POOL_MIN_SIZE",
      `at most NOETL_POSTGRES_POOL_MAX_SIZE (${postgresTool.poolMax})`,
    ],
    [
      httpTool.timeoutMs <= httpTool.timeoutMaxMs,
      "NOETL_HTTP_TIMEOUT_SECONDS",
      "at most NOETL_HTTP_TIMEOUT_MAX_SECONDS",
    ],
    [
      pythonTool.timeoutMs <= pythonTool.timeoutMaxMs,
      "NOETL_PYTHON_TIMEOUT_SECONDS",
      "at most NOETL_PYTHON_TIMEOUT_MAX_SECONDS",
    ],
    [
      !pythonTool.pass.some(name => OURS.test(name)),
      "NOETL_PYTHON_ENV",
      "no variables of the runtime: they hold its secrets",
    ],
    [
      events.transport !== "nats" || nats.url !== undefined,
      "NOETL_EVENT_TRANSPORT",
      "call or http, or nats together with NATS_URL",
    ],
    ...gateRules(prefetch),
    [http.host !== "", "NOETL_HOST", "an address"],
    [
      !starts.metaKeys.some(isSecretName),
      "NOETL_META_KEYS",
      "no names of secrets: events keep them",
    ],
  ];
  return rules
    .filter(([fine]) => !fine)
    .map(([, field, expected]) => ({ field, message: "it contradicts another setting", expected }));
}

function refused(issues: Issue[]): Rejected {
  const lines = issues.map(
    ({ field, message, expected, hint }) =>
      `${field}: ${message}; expected ${expected}${hint ? ` (${hint})` : ""}`,
  );
  return new Rejected(`Settings are refused.\n  ${lines.join("\n  ")}`, 422, { issues });
}
