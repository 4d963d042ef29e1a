// One loop's stream on a host of its own, without workers: a test claims and reports itself.
import { randomUUID } from "node:crypto";
import type { StreamName } from "../../mixins/event-store.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { commandId } from "../../schemas/ids.ts";
import type { Json } from "../../schemas/json.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { CATALOG_PREFIX } from "../../schemas/playbook/stored-result.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import type { LoopAnswer, LoopInput } from "../../schemas/loop-turns.ts";
import type { LoopState } from "../../services/loops/state.ts";
import type { HostOptions, TestHost, TestProcess } from "./actors.ts";
import { HEAD } from "./playbook-samples.ts";

export type LoopHost = TestHost<LoopInput, LoopAnswer, LoopState>;
export type LoopOptions = Partial<HostOptions<LoopState, LoopInput, LoopAnswer>>;

const PIN = { path: "demo/one", version: 1, hash: "abc" };
const LOOPING = `${HEAD}workflow:
  - step: each
    loop: {in: "{{ workload.items }}", iterator: item, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: noop}
`;
export const OK: OutcomeResult = { status: "ok", context: null };

/** A host of loops that knows the playbook. */
export function loopHost(process: TestProcess, options: LoopOptions = {}): LoopHost {
  const playbook = parsePlaybook(LOOPING) as unknown as Json;
  const loaded = new Map([[`${CATALOG_PREFIX}${PIN.path}@${PIN.version}#${PIN.hash}`, playbook]]);
  return process.host({ machine: loopMachine, kind: "loops", loaded, ...options });
}

/** What an execution tells a loop that it enters. */
export function startOf({ execution_id, stream_id }: StreamName, items: Json[]) {
  const scope = {
    execution: { id: execution_id, path: PIN.path },
    workload: { items },
    ctx: {},
    steps: {},
  };
  const ids = { execution_id, loop_id: stream_id };
  return { type: "start" as const, ...ids, step: "each", activation: 1, playbook: PIN, scope };
}

/** A running loop over these items, two of which are open. */
export async function startLoop(
  process: TestProcess,
  host: LoopHost,
  items: Json[] = ["a", "b", "c"],
): Promise<StreamName> {
  const stream = { execution_id: process.ids.next(), stream_id: process.ids.next() };
  await host.send(stream, startOf(stream, items));
  return stream;
}

/** The id of the command of one item. */
export function itemOf({ execution_id }: StreamName, iter_index: number): string {
  return commandId({ execution_id, step: "each", activation: 1, iter_index, attempt: 1 });
}

export interface Claimant {
  worker_id: string;
  incarnation: string;
  claim_id: string;
}

/** Who claims: a new incarnation, and a name for one claim. */
export function claimant(worker_id = "tester"): Claimant {
  return { worker_id, incarnation: randomUUID(), claim_id: randomUUID() };
}

/** Claims the command of an item. Rejected when it cannot be had. */
export async function claimItem(
  host: LoopHost,
  stream: StreamName,
  index: number,
  by = claimant(),
): Promise<Grant | undefined> {
  const command_id = itemOf(stream, index);
  return (await host.send(stream, { type: "claim", command_id, ...by })).grant;
}

/** Reports an item as done. */
export function reportItem(
  host: LoopHost,
  stream: StreamName,
  index: number,
  more: { delivery?: number; next?: Claimant } = {},
): Promise<LoopAnswer> {
  const command_id = itemOf(stream, index);
  const outcome = { command_id, delivery: 1, worker_id: "tester", result: OK, ...more };
  return host.send(stream, { type: "outcome", ...outcome });
}
