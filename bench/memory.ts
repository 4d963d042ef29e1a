// What this process holds while something runs, above what it holds when nothing does.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** How often what is held is looked at, in milliseconds: each look is a full collection. */
const LOOK_MS = 1_000;
const RSS_MS = 50;

export interface Held {
  /** Most bytes of heap and external memory that a collection left. */
  live: number;
  /** Most resident bytes; allocators give little back. */
  rss: number;
}

function live(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** What `work` holds at most, above what there was before it. */
export async function held<T>(work: () => Promise<T>): Promise<{ value: T; held: Held }> {
  const before = { live: live(), rss: process.memoryUsage.rss() };
  const most = { ...before };
  const looks = [
    setInterval(() => (most.live = Math.max(most.live, live())), LOOK_MS),
    setInterval(() => (most.rss = Math.max(most.rss, process.memoryUsage.rss())), RSS_MS),
  ];
  try {
    const value = await work();
    most.live = Math.max(most.live, live());
    return { value, held: { live: most.live - before.live, rss: most.rss - before.rss } };
  } finally {
    for (const look of looks) clearInterval(look);
  }
}
