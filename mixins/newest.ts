// What is remembered for a while only, in bounds.

/** Forgets the oldest beyond `most`, in the order in which they were put there. */
export function keepNewest(kept: Map<string, unknown> | Set<string>, most: number): void {
  for (const key of kept.keys()) {
    if (kept.size <= most) return;
    kept.delete(key);
  }
}
