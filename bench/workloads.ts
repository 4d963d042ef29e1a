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

export const PARALLEL_LOOP = `
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: parallel loop, path: bench/parallel_loop}
workload: {n: 1, window: 64}
workflow:
  - step: many
    loop:
      in: "{{ workload.n }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: "{{ workload.window }}", policy: {exec: distributed}}
    tool: {kind: noop}
`;

interface Ended {
  status: string;
  error: unknown;
}

/** Starts a run and waits for its end; anything but COMPLETED is an error of the bench. */
export async function runToEnd(broker: ServiceBroker, path: string, payload = {}): Promise<void> {
  const started = await broker.call<{ execution_id: string }, object>("executions.start", {
    path,
    payload,
  });
  for (;;) {
    const { execution_id } = started;
    const params = { execution_id, timeout_ms: 20_000 };
    const end = await broker.call<Ended, object>("executions.wait", params, { timeout: 0 });
    if (end.status === "RUNNING") continue;
    if (end.status === "COMPLETED") return;
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
