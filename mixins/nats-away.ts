// Which failures to connect are cured by waiting: NATS is not there yet, or not any more.
import { ErrorCode } from "nats";

const AWAY = new Set<string>([
  ErrorCode.ConnectionRefused,
  ErrorCode.ConnectionClosed,
  ErrorCode.ConnectionTimeout,
  ErrorCode.Disconnect,
  ErrorCode.Timeout,
  // Of the system: a name that is not known yet, a host or a network that is down.
  ...["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "EPIPE"],
  ...["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN"],
]);

/** false for what waiting does not cure, such as a refused login. */
export function isNatsAway(error: unknown): boolean {
  return AWAY.has(String((error as { code?: unknown } | null)?.code));
}
