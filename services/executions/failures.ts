// What failed of a run's loops, and asking for it to be run again.
import { failuresOf, type ItemFailure } from "../../mixins/loop-failures.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { RequestedBy } from "../../schemas/caller.ts";
import { Rejected } from "../../schemas/errors.ts";
import { contains } from "../../schemas/json-contains.ts";
import { fits } from "../../schemas/json.ts";
import { toRanges } from "../../schemas/ranges.ts";
import type { ExecutionsFailures, ExecutionsRedrive } from "../../schemas/requests.ts";
import { streamOf, type ExecutionHost } from "./host.ts";
import { rowOf } from "./read.ts";
import { choose } from "./redrive.ts";
import { caughtUp } from "./wait.ts";

/** An item larger than this is not shown beside its error. */
const ITEM_BYTES_MAX = 2_048;

/** What the row says of a loop or a fan-out. */
interface Loop {
  loop_id: string;
  failed: number;
}

/** Failed items of the newest activations of loops, by step and index. Throws Rejected 404. */
export async function listFailures(runtime: Runtime, request: ExecutionsFailures) {
  const { execution_id, step, after, limit } = request;
  const row = await rowOf(runtime, execution_id);
  const { loop = {}, fanout = {} } = row.state as unknown as Record<string, Record<string, Loop>>;
  const loops = { ...loop, ...fanout };
  const names = Object.keys(loops).filter(name => loops[name]?.failed);
  const name = step ?? names[0];
  const found = name === undefined ? undefined : loops[name];
  if (step !== undefined && !found) {
    throw new Rejected(`step '${step}' has run no loop`, 404, { steps: Object.keys(loops) });
  }
  if (!found) return { execution_id, step: null, steps: names, failures: [] };
  const page = await lowest(
    failuresOf(runtime, { execution_id, loop_id: found.loop_id }),
    after,
    limit + 1,
  );
  const failures = page.slice(0, limit).map(({ item, ...failure }) => ({
    ...failure,
    ...(fits(item, ITEM_BYTES_MAX) && { item }),
  }));
  const next = page.length > limit ? failures.at(-1)?.index : undefined;
  return { execution_id, step: name, steps: names, failures, ...(next !== undefined && { next }) };
}

/** The first failures above an index, however many there are: only a few are held at a time. */
async function lowest(
  failures: AsyncIterable<ItemFailure>,
  after: number,
  limit: number,
): Promise<ItemFailure[]> {
  let held: ItemFailure[] = [];
  const cut = () => {
    held.sort((one, other) => one.index - other.index);
    held = held.slice(0, limit);
  };
  for await (const failure of failures) {
    if (failure.index <= after) continue;
    held.push(failure);
    if (held.length > 2 * limit) cut();
  }
  cut();
  return held;
}

/**
 * Runs again what failed of a run that has ended; answers once its row says that it is running.
 * Throws Rejected 404, and 409 when there is nothing to run again.
 */
export async function redriveExecution(
  runtime: Runtime,
  host: ExecutionHost,
  { execution_id, step, where, generation: of }: ExecutionsRedrive,
  asked: RequestedBy,
) {
  const stream = streamOf(execution_id);
  const { lapsed, generation: newest } = await host.send(stream, { type: "describe" });
  const generation = of ?? newest;
  const chosen = lapsed ? choose({ lapsed: new Map(lapsed) }, step) : [];
  const loops = chosen.flatMap(([, { loop_id }]) => loop_id ?? []);
  const items = where && (await matching(runtime, { execution_id, loops, where }));
  const answer = await host.send(stream, { type: "redrive", generation, step, items, asked });
  const { generation: now, status: word } = answer;
  const shown = { status: word, generation: now, justNow: true };
  const { status } = await caughtUp(runtime, execution_id, shown);
  return { execution_id, status, generation: now, steps: chosen.map(([name]) => name) };
}

/** Of each loop the failed items that the predicate chooses. Throws Rejected 409 for none. */
async function matching(
  runtime: Runtime,
  asked: { execution_id: string; loops: string[]; where: Record<string, unknown> },
): Promise<Record<string, string>> {
  const { execution_id, loops, where } = asked;
  const items: Record<string, string> = {};
  let matched = 0;
  let seen = 0;
  for (const loop_id of loops) {
    const indexes: number[] = [];
    for await (const failure of failuresOf(runtime, { execution_id, loop_id })) {
      seen += 1;
      if (contains(failure, where)) indexes.push(failure.index);
    }
    matched += indexes.length;
    items[loop_id] = toRanges(indexes.sort((one, other) => one - other));
  }
  if (matched > 0) return items;
  const what = loops.length === 0 ? "no loop failed" : `none of ${seen} failed items matches`;
  throw new Rejected(`${what} ${JSON.stringify(where)}`, 409, { failed: seen });
}
