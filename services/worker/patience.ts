// What a worker asks of the store in the middle of its work: it waits for a store that is away.
import { backoffMs } from "../../mixins/clock.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { errorType } from "../../schemas/errors.ts";

/**
 * Asks until the store answers. Giving the command back instead would do again what its tools have
 * done. Throws Unavailable only when the command is aborted, and any other error at once.
 */
export async function patiently<T>(
  { runtime, options }: { runtime: Runtime; options: { signal: AbortSignal } },
  ask: () => Promise<T>,
): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      if (errorType(error) !== "UNAVAILABLE" || options.signal.aborted) throw error;
      await runtime.clock.sleep(backoffMs(tries, 50, 2_000));
    }
  }
}
