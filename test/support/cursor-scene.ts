// A queue in a user's table, and playbooks that empty it by a loop over a cursor.
import { strict as assert } from "node:assert";
import { ask } from "./actors.ts";

export interface CursorLoop {
  rows?: number;
  slots?: number;
  /** Of `loop.spec.frame`, in YAML. */
  frame?: string;
  /** Further keys of `loop.spec`, in YAML. */
  spec?: string;
  /** Of `cursor.options`, in YAML. */
  options?: string;
  /** What the claim selects from; the claim takes what is pending, or what this finds stale. */
  stale?: string;
  /** Instead of the claim's whole SQL. */
  claim?: string;
  /** Tasks, in YAML, instead of one that writes the row down. */
  tasks?: string;
  /** What follows the loop, in YAML. */
  after?: string;
}

const WRITE_DOWN = `
      - {name: put, kind: postgres, auth: pg_k8s, query: "insert into done (id) values ($1)",
         params: ["{{ row.id }}"]}
      - {name: mark, kind: postgres, auth: pg_k8s, params: ["{{ row.id }}"],
         query: "update queue set status = 'done' where id = $1"}`;

/** Fills a queue of so many rows, then loops over it in the step `work`. */
export function cursorPlaybook(loop: CursorLoop = {}): string {
  const { rows = 10, slots = 2, frame = "max_rows: 5", spec = "", options = "", stale } = loop;
  const claim =
    loop.claim ??
    `update queue set status = 'claimed', claimed_at = now(), claims = claims + 1
            where id in (
              select id from queue where status = 'pending'${stale ? ` or (${stale})` : ""}
              order by id limit {{ __frame_max_rows }} for update skip locked)
            returning id`;
  return `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: queue, path: test/queue}
workload: {rows: ${rows}, api_url: ""}
workflow:
  - step: start
    tool:
      kind: postgres
      auth: pg_k8s
      query: |
        drop table if exists queue, done;
        create table queue (id integer primary key, status text not null default 'pending',
                            claimed_at timestamptz, claims integer not null default 0);
        create table done (id integer not null, told text);
        insert into queue select generate_series(1, {{ rows }});
    next: {arcs: [{step: work}]}
  - step: work
    loop:
      iterator: row
      cursor:
        kind: postgres
        auth: pg_k8s
        options: {${options}}
        claim: |
            ${claim}
      spec: {mode: cursor, max_in_flight: ${slots}, frame: {${frame}}${spec && `, ${spec}`}}
    tool:${loop.tasks ?? WRITE_DOWN}
    next: {arcs: [{step: end, when: "{{ event.name == 'loop.done' }}"}]}
${
  loop.after ??
  `  - step: end
    tool:
      kind: noop
      result:
        status: "{{ work.status }}"
        stats: "{{ work.stats }}"
        processed: "{{ work.processed }}"
        failed: "{{ work.failed }}"
        breaks: "{{ work.breaks }}"
        frame_count: "{{ work.frame_count }}"`
}
`;
}

/** How often each row was done, those done once left out. */
export async function doneTwice(url: string): Promise<{ id: number; times: number }[]> {
  return ask(
    url,
    `select id, count(*)::integer as times from done group by id having count(*) > 1 order by id`,
  );
}

/** Rows 1 … n are all done, each at least once. */
export async function assertAllDone(url: string, n: number): Promise<void> {
  const found = await ask<{ ids: number; least: number; most: number }>(
    url,
    `select count(distinct id)::integer as ids, min(id) as least, max(id) as most from done`,
  );
  assert.deepEqual(found, [{ ids: n, least: 1, most: n }]);
}

/** Facts of a cursor's frames: how many of each type and slot. */
export async function frameRows(url: string, executionId: string) {
  const [row] = await ask<{ frames: number; facts: number; flushes: number }>(
    url,
    `select count(*) filter (where event_type = 'frame.committed'
                               and (meta->>'final')::boolean)::integer as frames,
            count(*) filter (where meta->>'command_id' like '%:c%')::integer as facts,
            count(*) filter (where event_type = 'frame.heartbeat' or event_type = 'frame.committed'
                               and not (meta->>'final')::boolean)::integer as flushes
     from noetl.event where execution_id = $1`,
    [executionId],
  );
  return row as { frames: number; facts: number; flushes: number };
}
