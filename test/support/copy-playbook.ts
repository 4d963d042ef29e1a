// A playbook of our own for faults: n posts are fetched over HTTP and upserted.
import { strict as assert } from "node:assert";
import { ask } from "./actors.ts";

export const COPY_PATH = "test/copy";

/** Posts of the mock API have the ids 1 to 100. */
export const COPY = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: copy, path: ${COPY_PATH}}
workload: {api_url: "", n: 100, pause: 0}
workflow:
  - step: start
    tool:
      kind: postgres
      auth: pg_k8s
      query: >-
        create table if not exists copied
        (id integer primary key, title text not null, times integer not null)
    next: {arcs: [{step: copy}]}
  - step: copy
    loop:
      in: "{{ range(1, n + 1) | list }}"
      iterator: id
      spec: {mode: parallel, max_in_flight: 8}
    tool:
      - name: get
        kind: http
        method: GET
        url: "{{ api_url }}/posts/{{ id }}"
      - name: wait
        kind: http
        method: GET
        url: "{{ api_url }}/api/v1/concurrency/probe"
        params: {delay_seconds: "{{ pause }}"}
      - name: put
        kind: postgres
        auth: pg_k8s
        query: >-
          insert into copied values ($1, $2, 1)
          on conflict (id) do update set times = copied.times + 1
        params: ["{{ id }}", "{{ get.data.title }}"]
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {success: "{{ copy.stats.success }}"}}
`;

/** The same, every post a shard of a fan-out. */
export const COPY_SHARDS = COPY.replace(
  "step: copy\n",
  "step: copy\n    spec: {loop_mode: fanout, fanout: {max_in_flight: 8}}\n",
).replace("      spec: {mode: parallel, max_in_flight: 8}\n", "");

/** All rows are there, each right; gives how many were written again. */
export async function assertCopied(url: string, n: number): Promise<number> {
  const [row] = await ask<Record<string, number>>(
    url,
    `select count(*)::integer as rows, (sum(times) - count(*))::integer as again,
            (count(*) filter (where title = 'Title of post ' || id))::integer as correct,
            min(id) as least, max(id) as most
     from copied`,
  );
  const { again = 0, ...rest } = row ?? {};
  assert.deepEqual(rest, { rows: n, correct: n, least: 1, most: n });
  return again;
}
