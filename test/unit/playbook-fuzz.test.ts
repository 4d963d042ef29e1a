/** Damaged playbooks: whatever is lost or garbled, the answer is a playbook or Rejected, soon. */
import { strict as assert } from "node:assert";
import { Rejected } from "../../schemas/errors.ts";
import { readPlaybook } from "../../schemas/playbook/parse.ts";
import { unknownNames } from "../../schemas/playbook/unknown-names.ts";
import { refuseUnrunnable } from "../../schemas/playbook/unrunnable.ts";

const SEED = 20_240_817;
const ROUNDS = 300;
const LONGEST_MS = 2000;

const VALID = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: demo, path: demo/one, labels: {a: true}}
executor: {profile: auto, spec: {entry_step: start, no_next_is_error: false}}
keychain: [{name: svc, kind: secrets, map: {key: "projects/{{ p }}"}}]
workload: {api_url: "http://x", items: [1, 2, 3], on: true, base: &base {a: 1}}
workbook:
  - {name: dbl, tool: {kind: python, input: {v: null}, code: "result = v"}}
workflow:
  - step: start
    desc: text
    spec:
      timeout: 5m
      policy:
        admit:
          rules: [{when: "{{ on }}", then: {allow: true}}, {else: {then: {allow: false}}}]
    tool: {kind: workbook, name: dbl, input: {v: "{{ items | length }}"}}
    set: {ctx.n: "{{ output.data }}"}
    next:
      spec: {mode: inclusive}
      arcs: [{step: fetch}, {step: end, when: "ctx.n > 1", set: {ctx.z: 1}}]
  - step: fetch
    loop: {in: "{{ items }}", iterator: item, spec: {mode: parallel, max_in_flight: 4}}
    tool:
      - name: get
        kind: http
        url: "{{ api_url }}/{{ item }}"
        headers: {<<: *base, x: y}
        spec:
          policy:
            rules:
              - when: "{{ output.status == 'error' and output.error.retryable }}"
                then: {do: retry, attempts: 4, backoff: exponential, delay: 0.5}
              - else: {do: continue, set: {iter.page: "{{ get.page + 1 }}"}}
      - put:
          kind: postgres
          auth: pg
          query: |
            {% if get %}
            insert into t values ('{{ get.data.id | tojson }}');
            {% endif %}
          spec: {policy: {rules: [{else: {then: {do: jump, to: get}}}]}}
    next: [end]
  - step: end
    tool: {kind: noop}
`;

/** mulberry32: small, seeded, good enough to damage text. */
function random(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return limit => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

const SCRAPS = [
  "{{",
  "}}",
  "{%",
  "%}",
  "[",
  "]",
  "{",
  "}",
  ":",
  "- ",
  "\n",
  "  ",
  '"',
  "'",
  "&a ",
  "*base",
  "<<: ",
  "null",
  "~",
  "!!binary ",
  "---\n",
  "? ",
  "|\n",
  "#",
  "\t",
  "\u0000",
  "é",
  "__proto__: 1",
  "constructor",
  "when: ",
  "1e999",
  ".nan",
];

/** One to four damages: a piece cut out, a scrap put in, a line dropped, doubled, or moved in. */
function damage(text: string, pick: (limit: number) => number): string {
  let result = text;
  for (let count = 1 + pick(4); count > 0; count--) {
    const at = pick(result.length + 1);
    const lines = result.split("\n");
    const line = pick(lines.length);
    switch (pick(5)) {
      case 0:
        result = result.slice(0, at) + result.slice(at + 1 + pick(40));
        break;
      case 1:
        result = result.slice(0, at) + SCRAPS[pick(SCRAPS.length)]! + result.slice(at);
        break;
      case 2:
        result = lines.toSpliced(line, 1 + pick(3)).join("\n");
        break;
      case 3:
        result = lines.toSpliced(line, 0, lines[pick(lines.length)]!).join("\n");
        break;
      default:
        result = lines.with(line, ` ${lines[line]!}`).join("\n");
    }
  }
  return result;
}

/** true when it parsed; anything but Rejected is thrown on, with the seed and the text. */
function accepts(text: string, round: number): boolean {
  const started = performance.now();
  try {
    const found = readPlaybook(text, { file: "fuzz.yaml" });
    unknownNames(found.playbook, found);
    refuseUnrunnable(found.playbook, ["http"], found);
    assert.deepEqual(JSON.parse(JSON.stringify(found.playbook)), found.playbook);
    return true;
  } catch (error) {
    if (error instanceof Rejected) return false;
    throw new Error(`seed ${SEED}, round ${round}:\n${text}`, { cause: error });
  } finally {
    assert.ok(
      performance.now() - started < LONGEST_MS,
      `seed ${SEED}, round ${round} took too long`,
    );
  }
}

describe("damaged playbooks", () => {
  it("begin as a valid one", () => {
    assert.ok(accepts(VALID, 0));
  });

  it(`are parsed or Rejected, never anything else (seed ${SEED})`, function () {
    this.timeout(60_000);
    const pick = random(SEED);
    let accepted = 0;
    for (let round = 1; round <= ROUNDS; round++) {
      if (accepts(damage(VALID, pick), round)) accepted++;
    }
    assert.ok(accepted > 0 && accepted < ROUNDS, `${accepted} of ${ROUNDS} accepted`);
  });

  it("are Rejected at every place where the text is cut off, or parsed", function () {
    this.timeout(60_000);
    for (let end = 0; end < VALID.length; end += 23) accepts(VALID.slice(0, end), end);
  });
});
