// Waiting for an answer that somebody, or a lost connection, may make pointless meanwhile.
import { Unavailable } from "../schemas/errors.ts";

/** What `promise` gives, unless `signal` aborts first: then what `why` says, at once. */
async function unless<T>(promise: Promise<T>, signal: AbortSignal, why: () => Error): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(why());
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  // The loser of the race is nobody's.
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    aborted.promise.catch(() => undefined);
  }
}

/**
 * What `promise` gives, unless the connection is lost first: then Unavailable, at once. What was
 * asked may have been done, so it must be repeatable.
 */
export function unlessLost<T>(promise: Promise<T>, lost: AbortSignal): Promise<T> {
  return unless(promise, lost, () => new Unavailable("the connection was lost"));
}

/** What `promise` gives, unless `signal` has aborted or does so first: then its reason. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    promise.catch(() => undefined);
    throw signal.reason as Error;
  }
  return unless(promise, signal, () => signal.reason as Error);
}
