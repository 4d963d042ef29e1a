// Many callers, one round trip.

/** Calls made in one turn of the event loop become one call with all their arguments. */
export function batched<In, Out>(run: (inputs: In[]) => Promise<Out[]>): (input: In) => Promise<Out> {
  let waiting: { input: In; resolve: (value: Out) => void; reject: (error: unknown) => void }[] = [];
  async function flush() {
    const batch = waiting;
    waiting = [];
    try {
      const outputs = await run(batch.map(one => one.input));
      batch.forEach((one, index) => one.resolve(outputs[index] as Out));
    } catch (error) {
      batch.forEach(one => one.reject(error));
    }
  }
  return input =>
    new Promise((resolve, reject) => {
      waiting.push({ input, resolve, reject });
      if (waiting.length === 1) setImmediate(() => void flush());
    });
}
