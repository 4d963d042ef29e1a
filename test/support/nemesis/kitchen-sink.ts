// Playbooks made of a bit of everything, from a seed, each with what it must come to.
import { isBad } from "./upstream.ts";

/** What a step of a playbook must come to. */
export interface PlannedStep {
  name: string;
  kind: string;
  /** Items `0` to `items - 1`, each with one row in `effect`. */
  items: number;
  /** Items that fail whatever happens. */
  failing: number[];
  /** The item that kills every worker that runs it. */
  poison?: number;
  /** Rows of a cursor have indexes of their own. */
  isCursor: boolean;
  isLoop: boolean;
}

export interface Plan {
  playbook: string;
  steps: PlannedStep[];
}

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

const RULES = `spec: {policy: {rules: [{
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
      const all = Array.from({ length: made.items }, (_, item) => item);
      return { ...made, failing: all.filter(isBad) };
    },
  },
  { kind: "cursor", isCursor: true, write: cursor },
  { kind: "children", write: children },
  { kind: "large", isSingle: true, write: large },
];

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

/** A playbook of two branches that run side by side; with `poison` one item kills its workers. */
export function makePlan(between: Between, options: { path: string; poison?: boolean }): Plan {
  const kinds = shuffled(STEP_KINDS, between);
  const middle = Math.floor(kinds.length / 2);
  const steps: PlannedStep[] = [];
  let left = options.poison === true;
  const branch = (letter: string, some: StepKind[]): string => {
    const own: PlannedStep[] = [];
    const parts = some.map((one, at) => {
      const name = `${letter}${at}_${one.kind}`;
      const next = at + 1 < some.length ? entryOf(some[at + 1]!, letter, at + 1) : `${letter}_told`;
      const {
        yaml,
        items,
        failing = [],
        poison,
      } = one.write({ name, next, between, poison: left });
      if (poison !== undefined) left = false;
      own.push({
        ...{ name, kind: one.kind, items, failing, isCursor: one.isCursor ?? false },
        isLoop: !one.isSingle,
        ...(poison !== undefined && { poison }),
      });
      return yaml;
    });
    steps.push(...own);
    return parts.join("") + told(letter, own);
  };
  const [one, other] = [kinds.slice(0, middle), kinds.slice(middle)];
  const playbook = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: kitchen sink, path: ${options.path}}
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: noop}
    next:
      spec: {mode: inclusive}
      arcs: [{step: ${entryOf(one[0]!, "a", 0)}}, {step: ${entryOf(other[0]!, "b", 0)}}]
${branch("a", one)}${branch("b", other)}`;
  return { playbook, steps };
}

function entryOf({ kind }: StepKind, letter: string, at: number): string {
  return `${letter}${at}_${kind}${kind === "cursor" ? "_fill" : ""}`;
}

/** What the playbook itself saw of its loops' counts. */
function told(letter: string, steps: PlannedStep[]): string {
  const tasks = steps
    .filter(({ isLoop }) => isLoop)
    .map(
      ({ name }) => `
      - name: ${name}
        kind: postgres
        auth: pg_k8s
        query: insert into told values ($1, $2, $3::jsonb) on conflict do nothing
        params: ["{{ execution_id }}", ${name}, "{{ ${name}.stats }}"]
        ${RULES}`,
    );
  const tool = tasks.length > 0 ? tasks.join("") : " {kind: noop}";
  return `  - step: ${letter}_told\n    tool:${tool}\n`;
}

function shuffled<T>(list: readonly T[], between: Between): T[] {
  const rest = [...list];
  return list.map(() => rest.splice(between(0, rest.length - 1), 1)[0]!);
}
