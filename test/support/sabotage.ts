// Rules that are switched off on purpose: with each of them a check must fail.
import { localBuckets, type Buckets } from "../../mixins/rate-limit/buckets.ts";
import type { EventStore } from "../../mixins/event-store.ts";
import type { LoopOptions } from "./loop-scene.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import { Ledger } from "../../services/worker/ledger.ts";

export type StoreWrap = (store: EventStore) => EventStore;

/** A conflict is taken for a commit. */
export const deafToConflict: StoreWrap = store => ({
  ...store,
  async append(append) {
    const outcome = await store.append(append);
    return outcome.status === "conflict" ? { status: "committed", at: Date.now() } : outcome;
  },
});

/** The head is always where this host thinks it is, so nothing is ever proved. */
export const withoutProof: StoreWrap = store => {
  const known = new Map<string, number>();
  return {
    ...store,
    async append(append) {
      const outcome = await store.append(append);
      if (outcome.status === "committed") {
        known.set(append.stream_id, append.expected + append.events.length);
      }
      return outcome;
    },
    async readEvents(stream, after, limit) {
      const events = await store.readEvents(stream, after, limit);
      known.set(stream.stream_id, events.at(-1)?.version ?? after);
      return events;
    },
    async readHead(streamId) {
      const head = await store.readHead(streamId);
      return head && { ...head, version: known.get(streamId) ?? 0 };
    },
  };
};

/** No claim is known again: whoever asks twice is somebody else. */
export function forgetsClaims(): LoopOptions["machine"] {
  let claims = 0;
  return {
    ...loopMachine,
    decide(input, state, context) {
      if (input.type !== "claim") return loopMachine.decide(input, state, context);
      claims += 1;
      const claim_id = `${input.claim_id}#${claims}`;
      return loopMachine.decide({ ...input, claim_id }, state, context);
    },
  };
}

/** The database class has no cap of its own. */
export class UncappedLedger extends Ledger {
  override free(): number {
    return super.free("general");
  }
}

/** Slots are not taken before a pull: two pulls see the same ones free. */
export class LateLedger extends Ledger {
  override take(): void {
    // What was reserved is not noted.
  }
}

/** Each process counts for itself. */
export const countsInMemory = (): Buckets => localBuckets();

/** A turn is not noted: whoever asks next is given the same one. */
export function forgetsTurns(buckets: Buckets): Buckets {
  return {
    ...buckets,
    lease: async leases => new Map([...(await localBuckets().lease(leases))]),
  };
}

/** A pause that an upstream asked for is known to nobody. */
export const forgetsPauses = (buckets: Buckets): Buckets => ({
  ...buckets,
  pause: () => Promise.resolve(),
});
