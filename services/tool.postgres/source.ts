/** From the fields of a postgres task to the SQL it runs and the database it runs in. */
import { decodeBase64, readScript } from "../../mixins/script-file.ts";
import { configFailure } from "../../mixins/tool.ts";
import type { Credential } from "../../mixins/tool.ts";
import { SSL_MODES } from "../../mixins/postgres/target-connection.ts";
import type { SslMode, Target } from "../../mixins/postgres/target-connection.ts";

const SQL_FIELDS = ["query", "command", "queries", "commands"];
const DEFAULT_PORT = 5432;

/**
 * The SQL texts of a task, in order: `query`, `command`, `queries`, `commands` (text or list of
 * text), the same as base64 under `<field>_b64`, or `script: {uri, source: {type: file}}`. Exactly
 * one of them. A script is read from below `scriptRoot`. Throws config failures that name the
 * field.
 */
export async function readSql(
  config: Record<string, unknown>,
  scriptRoot: string,
): Promise<string[]> {
  const fields = [...SQL_FIELDS, ...SQL_FIELDS.map(field => `${field}_b64`), "script"];
  const given = fields.filter(field => config[field] !== undefined && config[field] !== null);
  const field = given[0];
  if (field === undefined) throw configFailure("query: it is required", "query, command or script");
  if (given.length > 1) throw configFailure(`${given.join(" and ")}: keep one of them`);
  const value = config[field];
  if (field === "script") return [await readScript(value, scriptRoot)];
  const texts = Array.isArray(value) ? value : [value];
  const decode = field.endsWith("_b64") ? decodeBase64 : (text: string) => text;
  return texts.map((text, index) => {
    if (typeof text === "string") return decode(text, field);
    throw configFailure(`${field}: expected SQL text${texts.length > 1 ? ` at ${index}` : ""}`);
  });
}

/**
 * Where the task's database is: its credential, else its own fields. Names may carry the `db_` of a
 * registered credential. Throws a config failure naming what is missing; never repeats a value.
 */
export function readTarget(
  credential: Credential | undefined,
  config: Record<string, unknown>,
): Target {
  if (credential && !/^(|postgres(ql)?|pg|db|database)$/i.test(credential.type)) {
    const message = `auth: '${credential.name}' is of type '${credential.type}'`;
    throw configFailure(message, "the postgres tool takes a credential of type postgres");
  }
  const fields = credential ? credential.data : config;
  const place = credential ? `auth: credential '${credential.name}'` : "postgres";
  const url = first(fields, ["connection_string", "dsn", "database_url"]);
  const parsed = typeof url === "string" ? fromUrl(url, place) : {};
  const target = {
    host: text(first(fields, ["db_host", "host"])) ?? parsed.host,
    database: text(first(fields, ["db_name", "database", "dbname", "db"])) ?? parsed.database,
    user: text(first(fields, ["db_user", "user", "username"])) ?? parsed.user,
    password: text(first(fields, ["db_password", "password"])) ?? parsed.password,
  };
  const port = Number(first(fields, ["db_port", "port"]) ?? parsed.port ?? DEFAULT_PORT);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw configFailure(`${place}: db_port is not a port number`);
  }
  const { host, database, user } = target;
  if (!credential && !host) {
    throw configFailure("auth: it is required", "name a credential alias of type postgres");
  }
  if (!host) throw configFailure(`${place} has no db_host`);
  if (!user) throw configFailure(`${place} has no db_user`);
  const sslmode = readSslMode(first(fields, ["sslmode", "ssl_mode", "db_sslmode"]), place);
  return {
    host,
    port,
    user,
    database: database || user,
    password: target.password,
    sslmode: sslmode ?? readSslMode(parsed.sslmode, place),
  };
}

function first(fields: Record<string, unknown>, names: string[]): unknown {
  for (const name of names) {
    const value = fields[name];
    if (value !== undefined && value !== null && value !== "") return value;
  }
  return undefined;
}

function text(value: unknown): string | undefined {
  return value === undefined ? undefined : String(value);
}

function readSslMode(value: unknown, place: string): SslMode | undefined {
  if (value === undefined) return undefined;
  const mode = SSL_MODES.find(known => known === value);
  if (!mode) throw configFailure(`${place}: sslmode is unknown`, SSL_MODES.join(", "));
  return mode;
}

interface UrlParts {
  host?: string;
  port?: string;
  database?: string;
  user?: string;
  password?: string;
  sslmode?: string;
}

function fromUrl(value: string, place: string): UrlParts {
  const url = URL.parse(value.trim());
  if (!url || !/^postgres(ql)?:$/.test(url.protocol)) {
    const hint = "postgres://user:password@host:port/database";
    throw configFailure(`${place}: connection_string is not a Postgres URL`, hint);
  }
  try {
    return {
      host: decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, "$1") || undefined,
      port: url.port || undefined,
      database: decodeURIComponent(url.pathname.slice(1)) || undefined,
      user: decodeURIComponent(url.username) || undefined,
      password: decodeURIComponent(url.password) || undefined,
      sslmode: url.searchParams.get("sslmode") ?? undefined,
    };
  } catch {
    throw configFailure(`${place}: connection_string has a broken %-escape`);
  }
}
