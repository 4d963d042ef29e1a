/** Words of older NoETL languages, by where they were written, and what replaces each of them. */

const SET = "use set: {ctx.name: …}";
const POLICY = "use spec.policy.rules on the tool";
const ROUTER = "use next: {spec: {mode: …}, arcs: [{step, when, set}]}";
const STORE = "store with a tool of its own (a postgres task), or write output: {store: …}";
const ASSIGN = {
  set_ctx: SET,
  set_iter: "use set: {iter.name: …}",
  set_vars: SET,
  vars: SET,
};

export const OLD_WORDS = {
  root: {
    vars: "use workload for defaults, and set: {ctx.name: …} for what changes",
    steps: "use workflow",
    tasks: "use workbook for reusable tasks, workflow for steps",
  },
  step: {
    ...ASSIGN,
    when: "use spec.policy.admit.rules, or when on the arc that leads here",
    case: ROUTER,
    type: "use tool: {kind: …}",
    args: "use input",
    with: "use input",
    with_params: "use input",
    result: "use output, or set",
    outcome: "use output, or set",
    return: "use set",
    retry: `${POLICY} with do: retry`,
    eval: POLICY,
    expr: POLICY,
    sink: STORE,
    save: STORE,
    collect: "a loop collects its results by itself: {{ step.results }}",
    begin: "use tool",
    do: "use tool",
    end: "use next",
  },
  stepSpec: {
    next_mode: "use next: {spec: {mode: …}}",
    on_error: `${POLICY}, or an arc with when: "{{ event.name == 'call.error' }}"`,
  },
  tool: {
    ...ASSIGN,
    with: "use input",
    with_params: "use input",
    outcome: "use output, or set",
    return: "use set",
    case: POLICY,
    eval: POLICY,
    expr: POLICY,
    policy: "write it under spec: spec.policy.rules",
    rules: "write them under spec.policy: spec.policy.rules",
    sink: STORE,
    save: STORE,
    collect: "a loop collects its results by itself: {{ step.results }}",
  },
  rule: {
    expr: "use when",
    if: "use when",
    do: "write it under then: {do: …}",
    case: "use when",
  },
  then: {
    ...ASSIGN,
    args: "use set",
    goto: "use do: jump with to",
    max_attempts: "use attempts (all tries counted, the first included)",
  },
  loop: {
    collection: "use in",
    items: "use in",
    over: "use in",
    element: "use iterator",
    as: "use iterator",
    mode: "write it under spec: spec.mode",
    max_in_flight: "write it under spec: spec.max_in_flight",
    frame: "write it under spec: spec.frame",
  },
  loopSpec: {
    loop_mode: "write it under the spec of the step",
    fanout: "write it under the spec of the step",
    parallel: "use mode: parallel",
    concurrency: "use max_in_flight",
  },
  next: {
    step: "write it as an arc: arcs: [{step: …}]",
    when: "write it on an arc: arcs: [{step, when}]",
    mode: "write it under spec: spec.mode",
    on_no_match: "write it under spec: spec.on_no_match",
    targets: "use arcs",
  },
  arc: {
    args: "use set: {ctx.name: …} on the arc; the target step reads {{ ctx.name }}",
    input: "use set: {ctx.name: …} on the arc; the target step reads {{ ctx.name }}",
    to: "use step",
    target: "use step",
    set_ctx: SET,
    set_vars: SET,
  },
} satisfies Record<string, Record<string, string>> as Record<WordPlace, Record<string, string>>;

export type WordPlace =
  "root" | "step" | "stepSpec" | "tool" | "rule" | "then" | "loop" | "loopSpec" | "next" | "arc";
