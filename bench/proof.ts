// `npm run bench -- --only proof`: what a loop costs at 10^3, 10^5 and 10^6 items, what its owner
// holds meanwhile, how soon it is done after its last item, and what its proof takes.
import type { ServiceBroker } from "moleculer";
import type { Database } from "../mixins/postgres/index.ts";
import { held, type Held } from "./memory.ts";
import { measure, type Cost } from "./measure.ts";
import { runToEnd, WAYS, type Way } from "./workloads.ts";

/** Small loops are run again and again: one of them is over before it can be timed. */
const SIZES = {
  local: [
    { n: 1_000, times: 20 },
    { n: 10_000, times: 4 },
    { n: 100_000, times: 1 },
    { n: 1_000_000, times: 1 },
  ],
  distributed: [
    { n: 1_000, times: 5 },
    { n: 10_000, times: 1 },
    { n: 100_000, times: 1 },
  ],
  fanout: [
    { n: 1_000, times: 5 },
    { n: 10_000, times: 1 },
    { n: 100_000, times: 1 },
  ],
} as const;

interface Proof {
  way: Way;
  n: number;
  items: number;
  cost: Cost;
  held: Held;
  /** From the last item's end to the news of loop.done, the median of the runs. */
  doneMs: number;
  verifySeconds: number;
}

/** Runs everything in this process, one after the other, up to `most` items a loop. */
export async function proofs(
  broker: ServiceBroker,
  store: Database,
  { window, most }: { window: number; most: number },
): Promise<void> {
  const clock = await watchEnds(broker);
  console.log("a loop at every size, all in one process");
  for (const way of WAYS) {
    const found: Proof[] = [];
    for (const { n, times } of SIZES[way].filter(size => size.n <= most)) {
      found.push(await proof({ broker, store, clock, way, n, times, window }));
    }
    printProofs(found);
  }
}

interface Run {
  broker: ServiceBroker;
  store: Database;
  clock: EndClock;
  way: Way;
  n: number;
  times: number;
  window: number;
}

async function proof({ broker, store, clock, way, n, times, window }: Run): Promise<Proof> {
  const ids: string[] = [];
  const doneMs: number[] = [];
  async function work(): Promise<void> {
    for (let run = 0; run < times; run += 1) {
      ids.push(await runToEnd(broker, `bench/${way}_loop`, { n, window }));
      doneMs.push(clock.doneAt - clock.lastItemAt);
    }
  }
  const { value: cost, held: most } = await held(() => measure(store, work));
  const [id] = ids.slice(-1);
  const begun = performance.now();
  const { rows } = await store.aside<{ broken: string }>(
    "select count(*) as broken from noetl.verify_execution($1) where not ok",
    [id],
    600_000,
  );
  if (rows[0]?.broken !== "0") throw new Error(`the log of ${id} does not prove it`);
  return {
    ...{ way, n, cost, held: most, items: n * times },
    doneMs: doneMs.sort((one, other) => one - other)[Math.floor(times / 2)] ?? NaN,
    verifySeconds: (performance.now() - begun) / 1_000,
  };
}

interface EndClock {
  lastItemAt: number;
  doneAt: number;
}

/** When the newest item ended in its tool, and when the newest loop was said to be done. */
async function watchEnds(broker: ServiceBroker): Promise<EndClock> {
  const clock: EndClock = { lastItemAt: NaN, doneAt: NaN };
  const listener = { "loop.done": () => void (clock.doneAt = performance.now()) };
  broker.createService({ name: "bench.ends", events: listener });
  await broker.waitForServices("bench.ends");
  const found = broker.findNextActionEndpoint("tool.noop.run", {}, undefined as never);
  if (found instanceof Error) throw found;
  const action = found.action as { handler: (ctx: unknown) => Promise<unknown> };
  const { handler } = action;
  action.handler = async ctx => {
    const answer = await handler(ctx);
    clock.lastItemAt = performance.now();
    return answer;
  };
  return clock;
}

const MB = 1024 * 1024;

function printProofs(proofs: Proof[]): void {
  const [first] = proofs;
  if (!first) return;
  const perItem = ({ cost, items }: Proof) => (cost.seconds * 1e6) / items;
  const head = "way n µs/item vs-first rows/item WAL-B/item held-MB rss-MB last→done-ms verify-s";
  const lines = proofs.map(proof => [
    proof.way,
    String(proof.n),
    perItem(proof).toFixed(0),
    (perItem(proof) / perItem(first)).toFixed(2),
    (proof.cost.rows / proof.items).toFixed(2),
    (proof.cost.walBytes / proof.items).toFixed(0),
    (proof.held.live / MB).toFixed(1),
    (proof.held.rss / MB).toFixed(0),
    proof.doneMs.toFixed(1),
    proof.verifySeconds.toFixed(2),
  ]);
  for (const line of [head.split(" "), ...lines]) {
    console.log(line.map(cell => cell.padEnd(13)).join(""));
  }
}
