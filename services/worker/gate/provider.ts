// What a capacity gate asks: how much more may start, as far as somebody else is concerned.

import type { Snapshot } from "../../../schemas/capacity.ts";

export interface CapacityProvider {
  readonly name: string;
  /** How much is free now. Throws when it cannot be asked, or its answer makes no sense. */
  snapshot(signal: AbortSignal): Promise<Snapshot>;
  /**
   * Takes up to `count` for good, so that nobody else can have them; how many it got. Without it
   * the snapshot is an estimate, which others see at the same time.
   */
  reserve?(count: number, signal: AbortSignal): Promise<number>;
  /** Gives back what was reserved. Never throws: what is lost is found again. */
  release?(count: number): void;
  /** Calls when there may be room again; gives what ends that. */
  onChange?(wake: () => void): () => void;
  /** Between two looks while it is full; the gate's own interval when absent. */
  pollMs?: number;
  /** Units that work here holds although their reservation has ended. */
  overshoot?(): number;
  close?(): Promise<void>;
}
