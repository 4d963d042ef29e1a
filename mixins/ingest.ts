// How many outcomes a server takes in at a time, whichever way they come: who brings more is told
// to come later, and keeps them meanwhile.
import { Busy } from "../schemas/errors.ts";

/** When who found no room may come again. */
const RETRY_MS = 100;

export interface Ingest {
  /** Outcomes that are being decided. */
  readonly held: number;
  /** Times that somebody was told to come later. */
  readonly refused: number;
  /** Runs `work` on so many outcomes. Throws Busy when there is no room; an empty one takes any. */
  run<T>(outcomes: number, work: () => Promise<T>): Promise<T>;
}

export function createIngest(max: number): Ingest {
  let held = 0;
  let refused = 0;
  return {
    get held() {
      return held;
    },
    get refused() {
      return refused;
    },
    async run(outcomes, work) {
      if (held > 0 && held + outcomes > max) {
        refused += 1;
        const said = `this server takes in ${held} outcomes, ${max} at most`;
        throw new Busy(said, { retry_after_ms: RETRY_MS });
      }
      held += outcomes;
      try {
        return await work();
      } finally {
        held -= outcomes;
      }
    },
  };
}
