/** Who may come in: roles of keys, when a key is asked for, and which names this machine has. */

/**
 * What a key is good for: `viewer` reads, `operator` also starts and ends runs, `worker` runs
 * commands, `admin` may do everything.
 */
export const API_ROLES = ["admin", "operator", "viewer", "worker"] as const;
export type ApiRole = (typeof API_ROLES)[number];

/** How long a good key is remembered, ms: a revocation takes effect within this. */
export const KEY_MEMORY_MS = 5_000;

/** Whether keys are asked for: always, never, or only when others than this machine can connect. */
export const AUTH_MODES = ["auto", "required", "off"] as const;
export type AuthMode = (typeof AUTH_MODES)[number];

/** `host` is the address the API listens on. */
export function keysRequired({ auth, host }: { auth: AuthMode; host: string }): boolean {
  return auth === "auto" ? !isLoopback(host) : auth === "required";
}

/** Whether a key of this role may use a route that is open to `roles`; `admin` may use all. */
export function mayUse(role: ApiRole, roles: readonly ApiRole[]): boolean {
  return role === "admin" || roles.includes(role);
}

/** Whether only this machine is meant: localhost, 127.0.0.0/8, ::1, with or without a port. */
export function isLoopback(host: string): boolean {
  const name = hostName(host);
  if (name === undefined) return false;
  if (name === "localhost" || name === "[::1]") return true;
  return /^127\.\d+\.\d+\.\d+$/.test(name) || /^\[::ffff:7f[0-9a-f]{2}:[0-9a-f]+\]$/.test(name);
}

const HOST_CHARS = /^[\w.:[\]-]{1,255}$/;
/** An IPv6 address as people write it, without the brackets that a URL needs. */
const BARE_IPV6 = /^[^[\]]*:[^[\]]*:/;

/**
 * The name in a Host header, an entry of a list or an address to listen on: lower-case, without the
 * port, every spelling of an IP address as one. Undefined when it is none.
 */
export function hostName(host: string): string | undefined {
  if (!HOST_CHARS.test(host)) return undefined;
  const url = `http://${BARE_IPV6.test(host) ? `[${host}]` : host}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/\.$/, "") : undefined;
}
