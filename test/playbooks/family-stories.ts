// Playbooks that start others, and those others.
import { playbook } from "./stories.ts";

export const CHILD = playbook(
  "child",
  `
workload: {n: 0}
workflow:
  - step: double
    tool: {kind: noop, result: {twice: "{{ n * 2 }}"}}
    next: {arcs: [{step: after}]}
  - step: after
    tool: {kind: noop, result: {twice: -1}}
`,
);

export const PARENT = playbook(
  "parent",
  `
workflow:
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: playbook, path: test/child, input: {n: "{{ n }}"}, return_step: double}
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result:
        doubled: "{{ each.results | map(attribute='twice') | list }}"
        ended: "{{ each.results | map(attribute='status') | list }}"
`,
);

/** So many items that they travel in frames. */
export const MANY_CHILDREN = playbook(
  "many_children",
  `
workflow:
  - step: each
    loop: {in: "{{ 40 }}", iterator: n, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: playbook, path: test/child, input: {n: "{{ n }}"}, return_step: double}
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result:
        doubled: "{{ each.results | map(attribute='twice') | list }}"
`,
);

export const FAILING_CHILD = playbook(
  "failing_child",
  `
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: http, url: "{{ api_url }}/api/v1/errors", params: {error_type: 404}}
`,
);

export const FORGIVING_PARENT = playbook(
  "forgiving_parent",
  `
workload: {api_url: ""}
workflow:
  - step: call
    tool:
      kind: playbook
      path: test/failing_child
      input: {api_url: "{{ api_url }}"}
      return_step: start
      spec:
        policy:
          rules:
            - when: "{{ output.status == 'error' }}"
              then: {do: continue, set: {ctx.code: "{{ output.error.code }}"}}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {code: "{{ ctx.code }}"}}
`,
);

export const SLOW_CHILD = playbook(
  "slow_child",
  `
workload: {api_url: ""}
workflow:
  - step: start
    loop: {in: "{{ 10 }}", iterator: n}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/concurrency/probe"
      params: {delay_seconds: 0.1}
`,
);

export const ASYNC_PARENT = playbook(
  "async_parent",
  `
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: playbook, path: test/slow_child, input: {api_url: "{{ api_url }}"}}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {was: "{{ start.status }}", child: "{{ start.execution_id }}"}}
`,
);

/** Six children, three at a time, each of five requests. */
export const FAMILY = playbook(
  "family",
  `
workload: {api_url: ""}
workflow:
  - step: each
    loop: {in: "{{ 6 }}", iterator: n, spec: {mode: parallel, max_in_flight: 3}}
    tool:
      kind: playbook
      path: test/family_child
      input: {api_url: "{{ api_url }}", n: "{{ n }}"}
      return_step: end
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {of: "{{ each.results | map(attribute='n') | list }}"}}
`,
);

export const FAMILY_CHILD = playbook(
  "family_child",
  `
workload: {api_url: "", n: -1}
workflow:
  - step: start
    loop: {in: "{{ 5 }}", iterator: i, spec: {mode: parallel, max_in_flight: 2}}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/concurrency/probe"
      params: {delay_seconds: 0.05}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, result: {n: "{{ n }}"}}
`,
);
