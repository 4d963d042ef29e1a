/** Who asked, as a context carries it: the API puts it there, events keep it. */
import type { ApiRole } from "./access.ts";
import { isObject } from "./json.ts";

/** Who asks while no keys are; no key can have this name. */
export const ANONYMOUS = "anonymous";

/** What the API puts into `ctx.meta.caller`: the name of a key and its role. */
export interface Caller {
  name: string;
  role?: ApiRole;
}

/** How much of a foreign text an event keeps. */
const NAME_MAX_CHARS = 128;
const REQUEST_ID_MAX_CHARS = 128;

/** The part of a context that says who asked, on any broker. */
export interface AskedContext {
  meta?: unknown;
  requestID?: unknown;
}

export interface RequestedBy {
  /** Name of the key that asked; absent when the request did not come through the API. */
  requested_by?: string;
  /** The request's id, to find its lines in the logs. */
  request_id?: string;
}

/**
 * Who asked and in which request, ready to be put into an event. Other Moleculer apps may leave
 * anything in `meta`, so only texts are taken, and only so much of them.
 */
export function requestedBy(ctx: AskedContext): RequestedBy {
  const caller = isObject(ctx.meta) ? ctx.meta["caller"] : undefined;
  const name = shortText(isObject(caller) ? caller["name"] : undefined, NAME_MAX_CHARS);
  const requestId = shortText(ctx.requestID, REQUEST_ID_MAX_CHARS);
  return {
    ...(name !== undefined && { requested_by: name }),
    ...(requestId !== undefined && { request_id: requestId }),
  };
}

function shortText(value: unknown, maxChars: number): string | undefined {
  return typeof value === "string" && value !== "" ? value.slice(0, maxChars) : undefined;
}
