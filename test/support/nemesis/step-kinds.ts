// Each kind of step that the nemesis' playbooks are made of, in YAML.
import { isBad } from "./upstream.ts";

/** Random whole numbers, both ends possible. */
export type Between = (least: number, most: number) => number;

/** Where a step is written: its name, the one after it, and chance. */
export interface Place {
  name: string;
  next: string;
  between: Between;
  poison: boolean;
}

/** One kind of step: what it is in YAML, and what it must come to. */
export interface StepKind {
  kind: string;
  write(place: Place): { yaml: string; items: number; failing?: number[]; poison?: number };
  isCursor?: true;
  /** It has no loop: nothing counts its items. */
  isSingle?: true;
}

export const RULES = `spec: {policy: {rules: [{
            when: "{{ output.status == 'error' and output.error.retryable }}",
            then: {do: retry, attempts: 200, backoff: fixed, delay: 0.3}}]}}`;

/** Tables of the target, made before the first playbook runs. */
export const TABLES = `
  create table effect (execution_id text, step text, item text, value text, times integer not null,
                       primary key (execution_id, step, item));
  create table told (execution_id text, step text, counts jsonb, primary key (execution_id, step));
  create table queue (execution_id text, step text, item integer, status text default 'pending',
                      slot integer, primary key (execution_id, step, item));`;

const upsert = (execution: string, step: string, item: string, value: string, more = "") => `
        kind: postgres
        auth: pg_k8s
        query: >-
          ${more}insert into effect values ($1, $2, $3, $4, 1)
          on conflict (execution_id, step, item)
          do update set times = effect.times + 1, value = excluded.value
        params: ["${execution}", "${step}", "${item}", "${value}"]
        ${RULES}`;

const call = (path: string, ms = 0) => `
        kind: http
        method: POST
        auth: nemesis_api
        url: "{{ api_url }}/${path}?ms=${ms}"
        json: {some: thing}
        ${RULES}`;

/** Fetches an item and writes it down. */
function pipeline({ name, between }: Place, item: string, route = "work", most = 30): string {
  const path = `${route}/{{ execution_id }}/${name}/${item}`;
  return `
      - name: get${call(path, between(0, most))}
      - name: put${upsert("{{ execution_id }}", name, item, "{{ get.data.value }}")}`;
}

/** What each playbook begins with: an answer as it came is kept in the log. */
export const FIRST = call("work/{{ execution_id }}/start/0");

const arcs = ({ next }: Place) => `\n    next: {arcs: [{step: ${next}}]}\n`;
const TOLERANT = "tolerated_failure_percent: 100";

/** A loop of so many items over the pipeline. */
function loop(place: Place, items: number, spec: string, route?: string, most?: number) {
  const poison = place.poison && route === undefined ? place.between(0, items - 1) : undefined;
  const path = poison === undefined ? route : `{{ 'poison' if i == ${poison} else 'work' }}`;
  const yaml = `  - step: ${place.name}
    loop: {in: ${items}, iterator: i, spec: {${spec}, ${TOLERANT}}}
    tool:${pipeline(place, "{{ i }}", path, most)}${arcs(place)}`;
  return { yaml, items, ...(poison !== undefined && { poison }) };
}

const badOf = (items: number) => Array.from({ length: items }, (_, item) => item).filter(isBad);

/** Each kind of step; a new one is one entry more. */
export const STEP_KINDS: StepKind[] = [
  {
    kind: "single",
    isSingle: true,
    write: place => ({
      yaml: `  - step: ${place.name}\n    tool:${pipeline(place, "0")}${arcs(place)}`,
      items: 1,
    }),
  },
  {
    kind: "retried",
    isSingle: true,
    write: place => ({
      yaml: `  - step: ${place.name}\n    tool:${pipeline(place, "0", "flaky")}${arcs(place)}`,
      items: 1,
    }),
  },
  {
    kind: "sequential",
    write: place => loop(place, place.between(3, 6), "mode: sequential"),
  },
  {
    kind: "distributed",
    write: place =>
      loop(
        place,
        place.between(10, 24),
        `mode: parallel, max_in_flight: ${place.between(2, 6)}, policy: {exec: distributed}`,
      ),
  },
  {
    kind: "framed",
    write: place =>
      loop(
        place,
        place.between(60, 120),
        `mode: parallel, max_in_flight: ${place.between(2, 6)}`,
        undefined,
        8,
      ),
  },
  {
    kind: "tolerated",
    write(place) {
      const made = loop(place, place.between(6, 30), "mode: parallel, max_in_flight: 3", "bad", 10);
      return { ...made, failing: badOf(made.items) };
    },
  },
  { kind: "fanout", write: fanout },
  { kind: "cursor", isCursor: true, write: cursor },
  { kind: "children", write: children },
  { kind: "large", isSingle: true, write: large },
];

/** Shards of one item or of several; those with a bad one fail in every attempt. */
function fanout(place: Place) {
  const { name, between } = place;
  const items = between(6, 24);
  const spec = `max_in_flight: ${between(2, 8)}, max_shard_retries: 1, batch: ${between(1, 3)}`;
  const yaml = `  - step: ${name}
    spec: {loop_mode: fanout, fanout: {${spec}, allow_partial: true}}
    loop: {in: ${items}, iterator: i}
    tool:${pipeline(place, "{{ i }}", "bad", 20)}${arcs(place)}`;
  return { yaml, items, failing: badOf(items) };
}

/**
 * A slot claims what nobody has, and what it had claimed itself: nobody else has that while its
 * next claim is made.
 */
function cursor(place: Place) {
  const { name, between } = place;
  const items = between(10, 40);
  const mark = `with marked as (update queue set status = 'done' where execution_id = $1
            and step = $2 and item = $3::integer) `;
  const put = upsert("{{ execution_id }}", name, "{{ row.item }}", "{{ get.data.value }}", mark);
  const yaml = `  - step: ${name}_fill
    tool:
        kind: postgres
        auth: pg_k8s
        query: >-
          insert into queue (execution_id, step, item)
          select $1, $2, generate_series(0, $3::integer) on conflict do nothing
        params: ["{{ execution_id }}", ${name}, ${items - 1}]
        ${RULES}
    next: {arcs: [{step: ${name}}]}
  - step: ${name}
    loop:
      iterator: row
      cursor:
        kind: postgres
        auth: pg_k8s
        claim: >-
          update queue set status = 'claimed', slot = {{ frame.slot }} where
          execution_id = '{{ execution_id }}' and step = '${name}' and item in
          (select item from queue where execution_id = '{{ execution_id }}' and step = '${name}' and
          (status = 'pending' or (status = 'claimed' and slot = {{ frame.slot }}))
          order by item limit {{ __frame_max_rows }} for update skip locked) returning item
      spec: {mode: cursor, max_in_flight: 2, frame: {max_rows: ${CURSOR_ROWS}, max_attempts: 30}}
    tool:
      - name: get${call(`work/{{ execution_id }}/${name}/{{ row.item }}`, between(0, 20))}
      - name: put${put}${arcs(place)}`;
  return { yaml, items };
}

/** Rows that a frame of a cursor claims at most. */
export const CURSOR_ROWS = 5;
export const CHILD_PATH = "nemesis/child";

export const CHILD = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: child, path: ${CHILD_PATH}}
workload: {api_url: "", root: "", name: "", i: 0}
workflow:
  - step: start
    tool:
      - name: get${call("work/{{ root }}/{{ name }}/{{ i }}", 10)}
      - name: put${upsert("{{ root }}", "{{ name }}", "{{ i }}", "{{ get.data.value }}")}
`;

function children(place: Place) {
  const items = place.between(2, 5);
  const input = `{api_url: "{{ api_url }}", root: "{{ execution_id }}", name: ${place.name},
              i: "{{ i }}"}`;
  const yaml = `  - step: ${place.name}
    loop: {in: ${items}, iterator: i, spec: {mode: parallel, max_in_flight: 3, ${TOLERANT}}}
    tool:
        kind: playbook
        path: ${CHILD_PATH}
        return_step: start
        input: ${input}${arcs(place)}`;
  return { yaml, items };
}

/** A result that is kept by reference, read by the step after it. */
function large(place: Place) {
  const { name } = place;
  const yaml = `  - step: ${name}
    tool:${call(`large/{{ execution_id }}/${name}/0`)}
    next: {arcs: [{step: ${name}_use}]}
  - step: ${name}_use
    tool:${upsert("{{ execution_id }}", name, "0", `{{ ${name}.data.value }}`)}${arcs(place)}`;
  return { yaml, items: 1 };
}
