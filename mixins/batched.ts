// Many callers, one round trip.

interface Waiting<In, Out> {
  input: In;
  resolve: (value: Out) => void;
  reject: (error: unknown) => void;
}

/** Inputs of one call at most. */
const BATCH_MAX = 1_000;

/**
 * Gathers calls into one: those of one turn of the event loop, and those that arrive while
 * `inFlight` calls are on their way; with `queueMicrotask` as `later` only what is asked for
 * together, as a whole turn can take milliseconds. `run` answers in the order of its inputs. A call
 * never sees the result of a read that began before it was made.
 */
export function batched<In, Out>(
  run: (inputs: In[]) => Promise<Out[]>,
  {
    inFlight = 1,
    later = setImmediate,
  }: { inFlight?: number; later?: (act: () => void) => unknown } = {},
): (input: In) => Promise<Out> {
  const queue: Waiting<In, Out>[] = [];
  let running = 0;

  async function flush(): Promise<void> {
    const batch = queue.splice(0, BATCH_MAX);
    running += 1;
    try {
      const outputs = await run(batch.map(one => one.input));
      batch.forEach((one, index) => one.resolve(outputs[index] as Out));
    } catch (error) {
      batch.forEach(one => one.reject(error));
    }
    running -= 1;
    pump();
  }

  function pump(): void {
    while (queue.length > 0 && running < inFlight) void flush();
  }

  return input =>
    new Promise((resolve, reject) => {
      queue.push({ input, resolve, reject });
      if (queue.length === 1) later(pump);
    });
}
