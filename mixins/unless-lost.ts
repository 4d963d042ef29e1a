// Waiting for an answer over a connection that may be lost meanwhile.
import { Unavailable } from "../schemas/errors.ts";

/**
 * What `promise` gives, unless the connection is lost first: then Unavailable, at once. What was
 * asked may have been done, so it must be repeatable.
 */
export async function unlessLost<T>(promise: Promise<T>, lost: AbortSignal): Promise<T> {
  const gone = Promise.withResolvers<never>();
  const onLost = () => gone.reject(new Unavailable("the connection was lost"));
  if (lost.aborted) onLost();
  lost.addEventListener("abort", onLost, { once: true });
  // The loser of the race is nobody's.
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, gone.promise]);
  } finally {
    lost.removeEventListener("abort", onLost);
    gone.promise.catch(() => undefined);
  }
}
