// Playbooks made of a bit of everything, from a seed, each with what it must come to.
import { FIRST, RULES, STEP_KINDS, type Between, type StepKind } from "./step-kinds.ts";

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
    tool:${FIRST}
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
