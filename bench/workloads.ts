// The workloads of design §12, as playbooks a user could write.
import type { ServiceBroker } from "moleculer";

export const THREE_STEPS = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: three steps, path: bench/three_steps}
workflow:
  - step: first
    tool: {kind: noop}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: noop}
    next: {arcs: [{step: third}]}
  - step: third
    tool: {kind: noop}
`;

/** How the items of one step run: in frames, each as a command of its loop, or each as a shard. */
export const WAYS = ["local", "distributed", "fanout"] as const;
export type Way = (typeof WAYS)[number];

/** One step over `n` items. */
export const loopOf = (way: Way) => `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ${way} loop, path: bench/${way}_loop}
workload: {n: 1, window: 64}
workflow:
  - step: many
${way === "fanout" ? FANOUT : ""}    loop:
      in: "{{ workload.n }}"
      iterator: i
${way === "fanout" ? "" : parallel(way)}    tool: {kind: noop}
`;

const FANOUT = `    spec: {loop_mode: fanout, fanout: {max_in_flight: "{{ workload.window }}"}}
`;

const parallel = (exec: Way) => `      spec:
        {mode: parallel, max_in_flight: "{{ workload.window }}", policy: {exec: ${exec}}}
`;

/** Twenty steps in a row: what lies between one and the next is all the time there is. */
export const CHAIN_STEPS = 20;
export const CHAIN = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: chain, path: bench/chain}
workflow:
${Array.from({ length: CHAIN_STEPS }, (_, at) => {
  const next = at + 1 < CHAIN_STEPS ? `, next: {arcs: [{step: s${at + 1}}]}` : "";
  return `  - {step: s${at}, tool: {kind: noop}${next}}`;
}).join("\n")}
`;

/** The main job: fetch each record over HTTP, insert it. */
export const FETCH_AND_INSERT = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: fetch and insert, path: bench/fetch_and_insert}
workload: {api: "", n: 1, window: 32}
workflow:
  - step: copy
    loop:
      in: "{{ workload.n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: "{{ workload.window }}"}
    tool:
      - {name: get, kind: http, url: "{{ api }}/{{ i }}"}
      - name: put
        kind: postgres
        auth: bench_target
        query: insert into fetched (id, title) values ($1, $2)
        params: ["{{ i }}", "{{ get.data.title }}"]
`;

/** Many at work at once that need no CPU: each waits for an answer. */
export const WAITING = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waiting, path: bench/waiting}
workload: {api: "", n: 1, window: 64}
workflow:
  - step: wait
    loop:
      in: "{{ workload.n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: "{{ workload.window }}", policy: {exec: distributed}}
    tool: {kind: http, url: "{{ workload.api }}/{{ i }}"}
`;

interface Ended {
  status: string;
  error: unknown;
}

/** Starts a run and waits for its end; anything but COMPLETED is an error of the bench. */
export async function runToEnd(broker: ServiceBroker, path: string, payload = {}): Promise<string> {
  const { execution_id } = await broker.call<{ execution_id: string }, object>("executions.start", {
    path,
    payload,
  });
  for (;;) {
    const params = { execution_id, timeout_ms: 20_000 };
    const end = await broker.call<Ended, object>("executions.wait", params, { timeout: 0 });
    if (end.status === "RUNNING") continue;
    if (end.status === "COMPLETED") return execution_id;
    throw new Error(`${path} ended ${end.status}: ${JSON.stringify(end.error)}`);
  }
}

/** Keeps `concurrency` runs going until `count` have ended. */
export async function runMany(
  broker: ServiceBroker,
  path: string,
  count: number,
  concurrency: number,
): Promise<void> {
  let left = count;
  async function runner(): Promise<void> {
    while (left > 0) {
      left -= 1;
      await runToEnd(broker, path);
    }
  }
  await Promise.all(Array.from({ length: concurrency }, runner));
}
