// Chance that can be had again: TEST_SEED=… repeats a run whose seed was printed.
import { seeded } from "./actors.ts";

export interface Chance {
  readonly seed: number;
  /** A whole number from `least` to `most`, both possible. */
  between(least: number, most: number): number;
}

/** Says the seed, so that a failure can be repeated. `what` names the test. */
export function chance(what: string): Chance {
  const given = Number(process.env["TEST_SEED"]);
  const seed = given > 0 ? given : crypto.getRandomValues(new Uint32Array(1))[0]!;
  process.stdout.write(`      ${what}: TEST_SEED=${seed}\n`);
  const next = seeded(seed);
  return {
    seed,
    between: (least, most) => least + Math.floor(next() * (most - least + 1)),
  };
}
