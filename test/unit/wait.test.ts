/** Waiting for the end of a run, as the node that owns it does: nothing is asked that is known. */
import { strict as assert } from "node:assert";
import type { ServiceBroker } from "moleculer";
import { createClock } from "../../mixins/clock.ts";
import type { ExecutionRow } from "../../mixins/postgres/execution.ts";
import { createFeed, type Runtime } from "../../mixins/runtime.ts";
import type { ExecutionHost } from "../../services/executions/host.ts";
import type { ExecutionState } from "../../services/executions/state.ts";
import { caughtUp, waitForExecution } from "../../services/executions/wait.ts";
import { until } from "../support/actors.ts";

const ID = "7";
const RUNNING = { status: "running", execution_id: ID, generation: 0 } as unknown as ExecutionState;
const COMPLETED = { ...RUNNING, status: "completed" } as ExecutionState;
const END = { status: "COMPLETED", generation: 0, justNow: true };

const rowOf = (more: Partial<ExecutionRow> = {}): ExecutionRow => ({
  ...{ execution_id: ID, parent_execution_id: null, path: "p", playbook_version: 1, hash: "h" },
  ...{ status: "COMPLETED", last_event_type: "playbook.completed", last_node_name: "last" },
  ...{ start_time: 1_000, end_time: 2_000, state: {}, error: null, result: null, version: 8 },
  ...more,
});

/** A node that saw `state` last; `described` and `read` count what is asked of the store. */
function node(state: ExecutionState | undefined, row = rowOf()) {
  const counted = { described: 0, read: 0 };
  const watchers = new Set<(state: ExecutionState) => void>();
  const host = {
    lastSeen: () => state,
    watch(_stream: object, changed: (state: ExecutionState) => void) {
      watchers.add(changed);
      return () => watchers.delete(changed);
    },
    async send() {
      counted.described += 1;
      return { status: row.status, generation: 0 };
    },
  } as unknown as ExecutionHost;
  const rows = {
    async read() {
      counted.read += 1;
      return [row];
    },
  };
  const shown = createFeed<ReadonlyMap<string, ExecutionRow | undefined>>();
  const runtime = { clock: createClock(), rows, shown } as unknown as Runtime;
  const registry = { getServiceList: () => [] };
  const broker = { nodeID: "me", registry } as unknown as ServiceBroker;
  const wait = (timeout_ms = 5_000) =>
    waitForExecution(
      { runtime, host, broker },
      { execution_id: ID, timeout_ms, descendants: false },
    );
  const commit = (next: ExecutionState) => watchers.forEach(changed => changed(next));
  return { wait, commit, counted, runtime, shown, watchers };
}

describe("waiting for a run", () => {
  it("that goes on here asks the store nothing: the row is given as it is written", async () => {
    const { wait, commit, counted, shown, watchers } = node(RUNNING);
    const answer = wait();
    await until(() => watchers.size === 1);
    commit(COMPLETED);
    await new Promise(resolve => setImmediate(resolve));
    const row = rowOf({ result: { status: "ok", context: { said: "a\u0000b", n: 1 } } });
    shown.push(new Map([[ID, row]]));
    const { status, duration_ms, result } = await answer;
    assert.deepEqual({ status, duration_ms }, { status: "COMPLETED", duration_ms: 1_000 });
    assert.equal(JSON.stringify(result), '{"n":1,"said":"a\ufffdb"}', "as Postgres gives it");
    assert.deepEqual(counted, { described: 0, read: 0 });
  });

  it("that nobody tells of is proved after a while: another node may have ended it", async () => {
    const { wait, counted } = node(RUNNING);
    const begun = performance.now();
    assert.equal((await wait()).status, "COMPLETED");
    assert.deepEqual(counted, { described: 1, read: 1 });
    assert.ok(performance.now() - begun < 1_000);
  });

  it("that is not known here, or was over, is looked up at once", async () => {
    for (const state of [undefined, COMPLETED, { status: "none" } as ExecutionState]) {
      const { wait, counted } = node(state);
      assert.equal((await wait()).status, "COMPLETED");
      assert.deepEqual(counted, { described: 1, read: 1 });
    }
  });

  it("goes on over a row that does not say the end yet", async () => {
    const { runtime, shown, counted } = node(RUNNING);
    const answer = caughtUp(runtime, ID, END);
    shown.push(new Map([[ID, rowOf({ status: "RUNNING", end_time: null })]]));
    await new Promise(resolve => setImmediate(resolve));
    shown.push(new Map([["8", rowOf({ execution_id: "8" })]]));
    shown.push(new Map([[ID, rowOf()]]));
    assert.equal((await answer).status, "COMPLETED");
    assert.equal(counted.read, 0);
  });

  it("reads the row that another node has written", async () => {
    const { runtime, shown, counted } = node(RUNNING);
    const answer = caughtUp(runtime, ID, END);
    shown.push(new Map([[ID, undefined]]));
    assert.equal((await answer).status, "COMPLETED");
    assert.equal(counted.read, 1);
  });
});
