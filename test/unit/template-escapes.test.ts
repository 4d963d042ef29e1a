/** Known escapes of nunjucks and Jinja, and bombs: each is an error or inert. */
import { strict as assert } from "node:assert";
import { renderValue } from "../../schemas/playbook/render.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import type { ScopeParts } from "../../schemas/playbook/scope.ts";
import { TemplateError, evaluate, renderText } from "../../schemas/playbook/template.ts";

const parts: ScopeParts = {
  execution: { id: "1", path: "p" },
  workload: {
    s: "text",
    n: 3,
    list: [1, 2],
    dict: { a: 1 },
    evil: JSON.parse('{"__proto__": {"polluted": 1}, "constructor": {"prototype": 1}}') as unknown,
  },
  ctx: {},
  steps: { fetch: { rows: [{ id: 1 }] } },
  env: { HOME: "/x" },
};

/** Never a function, an object with a foreign prototype, or anything JSON does not have. */
function assertJson(value: unknown, source: string): void {
  if (value === null || ["string", "number", "boolean"].includes(typeof value)) return;
  assert.equal(typeof value, "object", `${source} gave a ${typeof value}`);
  const prototype: unknown = Object.getPrototypeOf(value);
  assert.ok(prototype === Object.prototype || prototype === Array.prototype, source);
  for (const item of Object.values(value as object)) assertJson(item, source);
}

function isInert(source: string): unknown {
  const scope = createScope(parts);
  let value: unknown = "";
  try {
    value = renderValue(source, scope, "typed");
    const text = renderText(source, scope);
    assert.ok(!/native code|function|=>|called|process|\[object/.test(text), `${source}: ${text}`);
  } catch (error) {
    assert.ok(error instanceof TemplateError, `${source}: ${String(error)}`);
  }
  assertJson(value, source);
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined, source);
  return value;
}

const ROOTS = [
  ...[
    "s",
    "n",
    "list",
    "map",
    "fetch",
    "ctx",
    "iter",
    "workload",
    "env",
    "output",
    "range",
    "now",
    "fn",
  ],
  ...[
    "steps",
    "results",
    "job",
    "execution",
    "''",
    "1",
    "[]",
    "{}",
    "true",
    "none",
    "(1)",
    "x",
    "evil",
  ],
  ...[
    "this",
    "self",
    "globalThis",
    "process",
    "require",
    "module",
    "cycler",
    "joiner",
    "loop",
    "lipsum",
  ],
  ...[
    "toString",
    "valueOf",
    "hasOwnProperty",
    "constructor",
    "__proto__",
    "get",
    "env.constructor",
  ],
];
const MEMBERS = [
  ...["constructor", "__proto__", "prototype", "__defineGetter__", "__lookupGetter__", "toString"],
  ...["valueOf", "call", "apply", "bind", "caller", "arguments", "hasOwnProperty", "__class__"],
  ...[
    "__mro__",
    "__subclasses__",
    "__globals__",
    "__init__",
    "__builtins__",
    "mainModule",
    "member",
  ],
  ...["plain", "map", "filter", "push", "concat", "at", "then", "toJSON", "size", "raw", "parts"],
];

describe("template escapes", () => {
  it("no member of any root is reachable that data does not own", () => {
    for (const root of ROOTS) {
      for (const key of MEMBERS) {
        for (const source of [`${root}.${key}`, `${root}['${key}']`, `${root}.${key}.${key}`]) {
          const value = isInert(`{{ ${source} }}`);
          if (root !== "evil")
            assert.ok(value === null || value === "", `${source}: ${String(value)}`);
        }
        if (!MEMBERS.slice(0, 6).includes(key)) continue;
        isInert(`{{ ${root}.${key}() }}`);
        isInert(`{{ ${root}['${key}']('return 1') }}`);
        isInert(`{{ ${root} | map(attribute='${key}') | list }}`);
        isInert(`{{ [${root}] | map(attribute='${key}.${key}') | list }}`);
        isInert(`{{ [${root}] | sort(attribute='${key}') }}`);
        isInert(`{{ [${root}] | groupby('${key}') }}`);
        isInert(`{{ ${root} | get('${key}') }}{{ ${root}.get('${key}') }}`);
        isInert(`{{ ${root}[['${key}']] }}{{ ${root}['con' ~ 'structor'] }}`);
      }
    }
  });

  for (const source of [
    "{{ constructor.constructor('return process')() }}",
    "{{ range.constructor('return global.process.mainModule.require')() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.constructor.constructor('x')() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ s | attr('__class__') }}",
    "{{ 'x' | constructor }}",
    "{{ 'x' | __proto__ }}",
    "{{ 'x' | toString }}",
    "{{ 1 is constructor }}",
    "{{ [1] | map('constructor') | list }}",
    "{{ [1] | map('__proto__') | list }}",
    "{{ [1] | select('hasOwnProperty') | list }}",
    "{{ toString.call(1) }}",
    "{{ constructor() }}",
    "{{ __defineGetter__('x', range) }}",
    "{{ {'__proto__': {'polluted': 1}} }}",
    "{{ {'constructor': 1} }}",
    '{{ \'{"__proto__": {"polluted": 1}}\' | fromjson }}',
    '{{ (\'{"__proto__": {"polluted": 1}}\' | fromjson).polluted }}',
    "{{ evil.polluted }}{{ evil.__proto__ }}{{ evil.constructor }}",
    "{% set __proto__ = {'polluted': 1} %}{{ __proto__ }}{{ polluted }}",
    "{% set dict.polluted = 1 %}",
    "{% for __proto__ in [1] %}{{ constructor }}{% endfor %}",
    "{% for i in range %}{{ i }}{% endfor %}",
    "{% for i in [1] %}{{ loop.constructor.constructor }}{{ loop.__proto__ }}{% endfor %}",
    "{{ (range)(3) }}",
    "{{ [range][0](3) }}",
    "{{ {'f': range}.f(1) }}",
    "{{ fn }}{{ fn() }}{{ fetch.fn }}{{ fetch.fn() }}",
    "{{ (fn or fn) }}{{ [fn] }}{{ {'a': fetch.fn} }}",
    "{{ fetch }}{{ workload }}",
    "{{ r/x/.constructor }}",
    "{{ s.replace.constructor }}",
    "{{ s.replace('t', range) }}",
    "{{ s | replace('t', '$`$&') }}",
    "{{ self }}{{ super() }}{{ caller() }}",
    "{% macro x() %}{% endmacro %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% asyncEach x in y %}{% endeach %}",
    "{% filter constructor %}x{% endfilter %}",
    "{% switch x %}{% endswitch %}",
    "{% call range() %}{% endcall %}",
    "{% do x %}",
  ]) {
    it(`inert: ${source}`, () => void isInert(source));
  }

  for (const source of [
    "{{ 'x' * 10 ** 9 }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ 10 ** 10 ** 100 }}",
    "{{ 9 ** 99999999 }}",
    "{{ range(10 ** 9) }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
    "{% for i in range(60000) %}{% endfor %}{% for i in range(60000) %}{% endfor %}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x ~ x %}".repeat(40) + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = [x, x, x, x] %}".repeat(40) + "{{ x }}",
    "{% set x = [1] %}" +
      "{% set x = [x, x] %}".repeat(60) +
      "{% set y = [1] %}" +
      "{% set y = [y, y] %}".repeat(60) +
      "{{ x == y }}",
    "{% set x = [1] %}" + "{% set x = x + x %}".repeat(60) + "{{ x | length }}",
    "{{ ('a' * 100000) | replace('', 'b' * 100000) | length }}",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "{{ ('a' * 4000) | list | join('b' * 100000) }}",
    "{{ 'a' | indent(10 ** 9, true) }}",
    "{{ 'a'.zfill(10 ** 12) }}",
    "{{ [1] | batch(10 ** 9, 'x') }}",
    "{{ [1] | slice(10 ** 9) }}",
    "{% set s = 'a' * 10000000 %}{% for i in range(90000) %}{{ s | upper | length }}{% endfor %}",
    "{% set l = range(50000) %}{% for i in l %}{{ l | sum }}{% endfor %}",
    "{% set l = range(50000) %}{% for i in l %}{{ -1 in l }}{% endfor %}",
    "{{ " + "[".repeat(5000) + "]".repeat(5000) + " }}",
    "{{ " + "(".repeat(5000) + "1" + ")".repeat(5000) + " }}",
    "{{ " + "not ".repeat(50000) + "1 }}",
    "{{ " + "- ".repeat(50000) + "1 }}",
    "{{ " + "1 + ".repeat(50000) + "1 }}",
    "{{ " + "1 if 1 else ".repeat(5000) + "1 }}",
    "{{ x" + " | d(x".repeat(5000) + ")".repeat(5000) + " }}",
    "{{ x" + " | lower".repeat(5000) + " }}",
    "{{ x" + "[x".repeat(5000) + "]".repeat(5000) + " }}",
    "{% if 1 %}".repeat(5000) + "{% endif %}".repeat(5000),
    "{% if 0 %}" + "{% elif 0 %}".repeat(5000) + "{% endif %}",
  ]) {
    it(`bounded: ${source.slice(0, 90)}`, () => {
      assert.throws(() => evaluate(source, createScope(parts)), TemplateError);
    }).timeout(4000);
  }

  it("a function in a scope is not a value", () => {
    const scope = { get: () => () => "called" };
    for (const source of [
      "{{ f }}",
      "{{ f() }}",
      "{{ [f, {'a': f}] }}",
      "{{ f.x }}",
      "{{ f.call() }}",
    ]) {
      try {
        assertJson(renderValue(source, scope, "typed"), source);
        assert.ok(!renderText(source, scope).includes("called"));
      } catch (error) {
        assert.ok(error instanceof TemplateError, source);
      }
    }
    assert.equal(renderText("{{ f }}", { get: () => ({ a: () => 1, b: 2 }) }), '{"b":2}');
  });

  it("random mixtures never give a function or a value that is not JSON", () => {
    const seed = Date.now() % 1_000_000;
    let state = seed;
    const pick = <T>(items: readonly T[]): T => {
      state = (state * 1103515245 + 12345) % 2147483648;
      return items[Math.floor((state / 2147483648) * items.length)] as T;
    };
    const filters = [
      "list",
      "first",
      "string",
      "tojson",
      "d(1)",
      "length",
      "items",
      "map('string')",
      "sort",
      "values",
    ];
    const grow = (depth: number): string => {
      const inner = () => (depth > 0 ? grow(depth - 1) : pick(ROOTS));
      const forms = [
        () => `${inner()}.${pick(MEMBERS)}`,
        () => `(${inner()} | ${pick(filters)})`,
        () => `[${inner()}, ${inner()}]`,
        () => `{'k': ${inner()}}.k`,
        () => `(${inner()} ${pick(["or", "and", "==", "in", "~"])} ${inner()})`,
        () => `(${inner()} if ${inner()} else ${inner()})`,
        () => `${inner()}[${inner()}]`,
        () => pick(ROOTS),
      ];
      return pick(forms)();
    };
    for (let round = 0; round < 1500; round++) isInert(`{{ ${grow(3)} }}`);
    assert.ok(true, `seed ${seed}`);
  }).timeout(10_000);
});
