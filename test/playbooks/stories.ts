// The playbooks of the stories. `api_url` comes with the payload.

/** Its head: the name is also its path, below test/. */
export const playbook = (name: string, body: string): string =>
  `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ${name}, path: test/${name}}
${body.trim()}
`;

/** Pages 2 and 4 fail once each. */
export const FLAKY = playbook(
  "flaky",
  `
workload: {api_url: ""}
workflow:
  - step: fetch
    loop:
      in: [1, 2, 3, 4]
      iterator: page
      spec: {mode: parallel, max_in_flight: 3}
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/flaky"
      params: {page: "{{ page }}", fail_on: "2,4"}
      spec:
        policy:
          rules:
            - when: "{{ output.status == 'error' and output.error.retryable }}"
              then: {do: retry, attempts: 3, backoff: linear, delay: 0.01}
    next: {arcs: [{step: end, when: "{{ event.name == 'loop.done' }}"}]}
  - step: end
    tool:
      kind: noop
      result:
        total: "{{ fetch.stats.total }}"
        success: "{{ fetch.stats.success }}"
        failed: "{{ fetch.stats.failed }}"
        first_ids: "{{ fetch.results | map(attribute='data.data.0.id') | list }}"
        lengths: >-
          [{% for page in fetch.results %}{{ page.data.data | length }}
          {%- if not loop.last %}, {% endif %}{% endfor %}]
`,
);

export const BROKEN = playbook(
  "broken",
  `
workload: {api_url: ""}
workflow:
  - step: fetch
    loop:
      in: [200, 200, 503]
      iterator: code
      spec: {mode: parallel, max_in_flight: 3}
    tool:
      kind: http
      url: "{{ api_url }}/{{ 'api/v1/errors' if code == 503 else 'health' }}"
      params: {error_type: "{{ code }}", retry_after: 0}
      spec:
        policy:
          rules:
            - when: "{{ output.status == 'error' }}"
              then: {do: retry, attempts: 3}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop}
`,
);

export const PAGES = playbook(
  "pages",
  `
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: noop}
    set: {ctx.page: 1, ctx.items: 0}
    next: {arcs: [{step: fetch}]}
  - step: fetch
    tool:
      kind: http
      url: "{{ api_url }}/api/v1/assessments"
      params: {page: "{{ ctx.page }}"}
    set:
      ctx.items: "{{ ctx.items + (fetch.data.data | length) }}"
      ctx.page: "{{ ctx.page + 1 }}"
    next:
      spec: {mode: exclusive}
      arcs:
        - {step: fetch, when: "{{ fetch.data.paging.hasMore }}"}
        - {step: end}
  - step: end
    tool:
      kind: noop
      result:
        items: "{{ ctx.items }}"
        pages: "{{ ctx.page - 1 }}"
        last: "{{ fetch.data.data[-1].name }}"
`,
);

export const WORKBOOK = playbook(
  "workbook",
  `
workload: {api_url: ""}
workbook:
  - name: echo
    tool:
      kind: http
      url: "{{ api_url }}/get"
      params: {n: "{{ n }}", word: "{{ word }}"}
      input: {n: null, word: plain}
workflow:
  - step: a
    tool: {kind: workbook, name: echo, input: {n: 1}}
    next: {arcs: [{step: b}]}
  - step: b
    tool: {kind: workbook, name: echo, input: {n: 2, word: other}}
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result:
        a: ["{{ a.data.args.n }}", "{{ a.data.args.word }}"]
        b: ["{{ b.data.args.n }}", "{{ b.data.args.word }}"]
`,
);

export const ERROR_ARC = playbook(
  "error_arc",
  `
workload: {api_url: "", code: 500}
workflow:
  - step: start
    tool:
      kind: http
      url: "{{ api_url }}/{{ 'health' if code == 200 else 'api/v1/errors' }}"
      params: {error_type: "{{ code }}"}
    next:
      spec: {mode: exclusive}
      arcs:
        - {step: repair, when: "{{ event.name == 'call.error' }}"}
        - {step: usual}
  - {step: repair, tool: {kind: noop}}
  - {step: usual, tool: {kind: noop}}
`,
);

export const PLAIN_ARC = playbook(
  "plain_arc",
  `
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: http, url: "{{ api_url }}/api/v1/errors", params: {error_type: 404}}
    next: {arcs: [{step: end}]}
  - {step: end, tool: {kind: noop}}
`,
);

export const FORK = playbook(
  "fork",
  `
workload: {api_url: ""}
workflow:
  - step: start
    tool: {kind: noop}
    next: {spec: {mode: inclusive}, arcs: [{step: left}, {step: right}]}
  - step: left
    tool: {kind: noop, result: {word: L}}
    next: {arcs: [{step: join}]}
  - step: right
    tool:
      - name: slow
        kind: http
        url: "{{ api_url }}/api/v1/concurrency/probe"
        params: {delay_seconds: 0.1}
      - {name: done, kind: noop, result: {word: R}}
    next: {arcs: [{step: join}]}
  - step: join
    tool: {kind: noop, result: {left: "{{ left.word }}", right: "{{ right.done.word }}"}}
`,
);

export const SUM = playbook(
  "sum",
  `
workflow:
  - step: start
    tool: {kind: noop}
    set: {ctx.sum: 0, ctx.order: []}
    next: {arcs: [{step: add}]}
  - step: add
    loop: {in: [1, 2, 3, 4], iterator: n}
    tool:
      kind: noop
      spec:
        policy:
          rules:
            - else:
                then:
                  do: continue
                  set:
                    ctx.sum: "{{ ctx.sum + n }}"
                    ctx.order: "{{ ctx.order + [n] }}"
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result: {sum: "{{ ctx.sum }}", order: "{{ ctx.order }}", count: "{{ add.stats.success }}"}
`,
);

export const ROWS = playbook(
  "rows",
  `
workload: {text: ""}
workflow:
  - step: make
    tool:
      kind: postgres
      auth: pg_k8s
      query: create table notes (id serial primary key, note text)
    next: {arcs: [{step: write}]}
  - step: write
    tool:
      kind: postgres
      auth: pg_k8s
      query: insert into notes (note) values ($1) returning note
      params: ["{{ text }}"]
    next: {arcs: [{step: read}]}
  - step: read
    tool: {kind: postgres, auth: pg_k8s, query: select count(*)::integer as n from notes}
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result: {note: "{{ write.rows[0].note }}", rows: "{{ read.rows[0].n }}"}
`,
);

export const EMPTY = playbook(
  "empty",
  `
workflow:
  - step: nothing
    loop: {in: [], iterator: n, spec: {mode: parallel}}
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: noop
      result: {total: "{{ nothing.stats.total }}", results: "{{ nothing.results }}"}
`,
);
