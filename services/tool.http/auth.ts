/** From a credential to what a request carries: headers and query parameters. Pure. */
import { isObject } from "../../schemas/json.ts";
import { configFailure } from "../../mixins/tool.ts";
import type { Credential } from "../../mixins/tool.ts";
import { basicValue } from "./request.ts";

export interface HttpSecrets {
  headers: [string, string][];
  query: [string, string][];
}

const DEFAULT_KEY_HEADER = "X-API-Key";
const TYPES = "bearer, basic, api_key or header";

/**
 * `bearer {token}`, `basic {username, password}`, `api_key {key, header?, in?, prefix?}` and
 * `header {headers}` or `header {name, value}`. Throws a config failure naming the missing field.
 */
export function httpSecrets(credential: Credential | undefined): HttpSecrets {
  const secrets: HttpSecrets = { headers: [], query: [] };
  if (!credential) return secrets;
  const { data } = credential;
  switch (kindOf(credential)) {
    case "bearer": {
      const token = need(credential, ["token", "access_token", "bearer_token"]);
      secrets.headers.push(["Authorization", `Bearer ${token}`]);
      return secrets;
    }
    case "basic": {
      const user = need(credential, ["username", "user"]);
      secrets.headers.push(["Authorization", basicValue(user, String(data.password ?? ""))]);
      return secrets;
    }
    case "api_key": {
      const key = need(credential, ["key", "api_key", "value", "token"]);
      const inQuery = data.in === "query" || data.location === "query";
      const name = data.header ?? data.header_name ?? data.name ?? data.param;
      if (inQuery) secrets.query.push([String(name ?? "api_key"), key]);
      else secrets.headers.push([String(name ?? DEFAULT_KEY_HEADER), `${prefix(data)}${key}`]);
      return secrets;
    }
    case "header":
      secrets.headers.push(...headerPairs(credential));
      return secrets;
    default:
      throw configFailure(
        `auth: '${credential.name}' is of type '${credential.type}'`,
        `the http tool takes ${TYPES}`,
      );
  }
}

function kindOf({ type, data }: Credential): string {
  const given = type.toLowerCase().replaceAll("-", "_");
  const known: Record<string, string> = {
    bearer: "bearer",
    token: "bearer",
    bearer_token: "bearer",
    http_bearer: "bearer",
    basic: "basic",
    http_basic: "basic",
    basic_auth: "basic",
    api_key: "api_key",
    apikey: "api_key",
    header: "header",
    headers: "header",
    http: "header",
  };
  if (given !== "") return known[given] ?? given;
  if (data.token ?? data.access_token) return "bearer";
  if (data.username ?? data.user) return "basic";
  if (data.api_key ?? data.key) return "api_key";
  return isObject(data.headers) ? "header" : "";
}

function need({ name, type, data }: Credential, fields: string[]): string {
  for (const field of fields) {
    const value = data[field];
    if (value !== undefined && value !== null && value !== "") return String(value);
  }
  throw configFailure(`auth: credential '${name}' of type '${type}' has no ${fields[0]}`);
}

function prefix(data: Record<string, unknown>): string {
  return typeof data.prefix === "string" && data.prefix !== "" ? `${data.prefix.trim()} ` : "";
}

function headerPairs(credential: Credential): [string, string][] {
  const { headers } = credential.data;
  if (isObject(headers)) return Object.entries(headers).map(([key, value]) => [key, `${value}`]);
  return [[need(credential, ["name", "header"]), need(credential, ["value"])]];
}
