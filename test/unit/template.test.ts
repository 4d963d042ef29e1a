/** The template language: Jinja's meaning, native types, places and hints of errors. */
import { strict as assert } from "node:assert";
import {
  compileTemplate,
  evaluate,
  hasTemplate,
  isTrue,
  renderText,
} from "../../schemas/playbook/template.ts";
import { TemplateError } from "../../schemas/playbook/template.ts";
import type { Scope } from "../../schemas/playbook/template.ts";

function scopeOf(data: Record<string, unknown>): Scope {
  return { get: name => (Object.hasOwn(data, name) ? data[name] : undefined) };
}

const scope = scopeOf({
  n: 7,
  zero: 0,
  half: 0.5,
  text: "it's",
  digits: "42",
  id: "508192345678901234",
  yes: true,
  no: false,
  nothing: null,
  list: [3, 1, 2],
  rows: [
    { id: 2, name: "b", tags: ["x"] },
    { id: 1, name: "A", tags: [] },
  ],
  map: { a: 1, items: [1, 2], nested: { deep: "v" } },
  empty: {},
  key: "a",
});

/** Each expression and what it gives. */
function gives(table: Record<string, unknown>): void {
  for (const [expression, expected] of Object.entries(table)) {
    assert.deepEqual(evaluate(`{{ ${expression} }}`, scope), expected, expression);
  }
}

function fails(source: string, message: RegExp, hint?: RegExp): TemplateError {
  try {
    evaluate(source, scope);
  } catch (error) {
    assert.ok(error instanceof TemplateError, `${source}: ${String(error)}`);
    assert.match(error.message, message, source);
    if (hint) assert.match(error.hint ?? "", hint, source);
    return error;
  }
  return assert.fail(`${source} did not fail`);
}

describe("template", () => {
  it("keeps the type of a pure path", () => {
    gives({
      n: 7,
      yes: true,
      nothing: null,
      list: [3, 1, 2],
      "map.nested.deep": "v",
      digits: "42",
    });
    assert.equal(evaluate("  {{ n }}\n", scope), 7);
    assert.equal(evaluate("{{ n }}{{ n }}", scope), "77");
  });

  it("lets undefined chain: it is empty, falsy, and equal to nothing but none", () => {
    gives({ "a.b.c[0].d": undefined, "x is defined": false, "x == 1": false, "x == none": true });
    gives({ "x > 0": false, "nothing < 1": false, "x.get('a')": undefined, "1 in x": false });
    assert.equal(renderText("[{{ x.y }}]", scope), "[]");
  });

  it("compares strictly", () => {
    gives({ "'1' == 1": false, "1.0 == 1": true, "'' == 0": false, "[1, [2]] == [1, [2]]": true });
    gives({ "{'a': 1} == {'a': 1.0}": true, "{'a': 1} == {'b': 1}": false, "1 != '1'": true });
    gives({ "1 < 2 < 3": true, "1 < 2 < 2": false, "'a' < 'b'": true, "[1, 2] < [1, 3]": true });
    fails("{{ 1 < 'a' }}", /have no order/);
  });

  it("computes as Python does", () => {
    gives({ "7 * 3 // 2": 10, "a or 7 % 3": 1, "-7 % 3": 2, "-7 // 2": -4, "2 ** 10": 1024 });
    gives({
      "7 / 2": 3.5,
      "10 - 3 - 2": 5,
      "2 + 3 * 4": 14,
      "1 ~ 2 ~ 'x'": "12x",
      "'a' + 'b'": "ab",
    });
    gives({ "[1] + [2]": [1, 2], "'ab' * 3": "ababab", "[0] * 3": [0, 0, 0], "true + 1": 2 });
    gives({ "9007199254740991 + 2": "9007199254740993", "2 ** 64": "18446744073709551616" });
    fails("{{ 1 + 'a' }}", /cannot add a number and a string/, /~/);
    fails("{{ x + 1 }}", /undefined value \+ a number/);
    fails("{{ 1 / 0 }}", /division by zero/);
  });

  it("returns operands from and and or, and takes the first inline if that holds", () => {
    gives({ "x or 'd'": "d", "'' or 0 or []": [], "n and text": "it's", "not list": false });
    gives({ "1 if zero else 2 if n == 7 else 3": 2, "'a' if no": undefined });
  });

  it("finds members of lists, texts and maps", () => {
    gives({ "2 in list": true, "9 not in list": true, "'s' in text": true, "'a' in map": true });
    gives({ "list[-1]": 2, "list[1:]": [1, 2], "list[::-1]": [2, 1, 3], "text[:2]": "it" });
    gives({ "map[key]": 1, "list.0": 3, "list.length": 3, "text.length": undefined });
  });

  it("lets data win over methods, and calls methods of the table", () => {
    gives({ "map.items": [1, 2], "empty.items": undefined, "map.get('zz', 5)": 5 });
    gives({ "empty.items()": [], "map.nested.items()": [["deep", "v"]], "text.upper()": "IT'S" });
    gives({ "'a,b'.split(',')": ["a", "b"], "'-'.join(['a', 'b'])": "a-b", "' x '.strip()": "x" });
    gives({
      "'abc'.startswith('ab')": true,
      "map.nested.keys()": ["deep"],
      "'a'.replace('a', 'b')": "b",
    });
    fails("{{ list.append(1) }}", /unknown method 'append'/);
    fails("{{ n.lower() }}", /a number has no method 'lower'/);
  });

  it("knows Jinja's tests", () => {
    gives({
      "x is undefined": true,
      "nothing is none": true,
      "n is odd": true,
      "n is number": true,
    });
    gives({ "map is mapping": true, "list is sequence": true, "n is divisibleby 7": true });
    gives({ "n is in [7]": true, "n is eq 7": true, "text is string and n is not string": true });
    gives({
      "true is boolean": true,
      "n is sameas 7": true,
      "False == no": true,
      "None is none": true,
    });
  });

  it("reads maps in maps up to the tag's own end", () => {
    gives({ "{'a': {'b': {'c': n}}}": { a: { b: { c: 7 } } }, "{'a': {'b': 1}}.a.b": 1 });
    assert.equal(renderText('{"x":{"y":{{ n }}}}', scope), '{"x":{"y":7}}');
    assert.equal(renderText("a #} b {{ n }}{# gone #}", scope), "a #} b 7");
  });

  it("prints maps as JSON, booleans in lower case, none as nothing", () => {
    const source = "{{ map.nested }}|{{ list }}|{{ yes }}|{{ nothing }}|{{ half }}";
    assert.equal(renderText(source, scope), '{"deep":"v"}|[3,1,2]|true||0.5');
  });

  it("runs if, for, set and raw", () => {
    const loop =
      "{% for r in rows if r.id > 1 %}{{ loop.index }}:{{ r.name }}{% else %}none{% endfor %}";
    assert.equal(renderText(loop, scope), "1:b");
    assert.equal(
      renderText("{% for k, v in map.nested %}{{ k }}={{ v }}{% endfor %}", scope),
      "deep=v",
    );
    assert.equal(renderText("{% if zero %}a{% elif n %}b{% else %}c{% endif %}", scope), "b");
    assert.equal(
      renderText("{% set a = n + 1 %}{{ a }}{% raw %}{{ a }}{% endraw %}", scope),
      "8{{ a }}",
    );
    assert.equal(
      renderText("{% set a = 1 %}{% for i in [1] %}{% set a = 2 %}{% endfor %}{{ a }}", scope),
      "1",
    );
    const trimmed = "x  {%- if yes -%}  y  {%- endif %} z";
    assert.equal(renderText(trimmed, scope), "xy z");
  });

  it("names every static path it reads, cut where a member is computed", () => {
    const paths = (source: string) =>
      compileTemplate(source)
        .paths.map(path => path.join("."))
        .sort();
    assert.deepEqual(paths("{{ a.b[0]['c'].d }}"), ["a.b.0.c.d"]);
    assert.deepEqual(paths("{{ a.b[i.k].c }} {{ a.b | default(z.y) }}"), ["a.b", "i.k", "z.y"]);
    assert.deepEqual(
      paths("{% for r in s.rows %}{{ r.id }}{{ loop.index }}{{ t.u }}{% endfor %}"),
      ["s.rows", "t.u"],
    );
    assert.deepEqual(paths("{{ now() }} {{ a.b.items() }} {{ x is defined }}"), ["a.b", "x"]);
    assert.deepEqual(paths("{{ a if b == {'k': c} else [d.e, True] }}"), ["a", "b", "c", "d.e"]);
  });

  it("says where a bad template is bad and what to write instead", () => {
    const error = fails("a\nb {{ x | lenght }}", /unknown filter 'lenght'/, /length/);
    assert.deepEqual([error.line, error.column], [2, 10]);
    assert.equal(error.expression, "{{ x | lenght }}");
    assert.equal(error.type, "TEMPLATE");
    fails("{{ foo(1) }}", /unknown function 'foo'/, /now, range/);
    fails("{{ x is definde }}", /unknown test/, /defined/);
    fails("{{ x | replace('a') }}", /replace wants 'new'/);
    fails("{{ x | int(bas=2) }}", /unknown parameter of int 'bas'/, /base/);
    for (const tag of [
      "include 'x'",
      "import 'x' as y",
      "extends 'x'",
      "macro m()",
      "block b",
      "call x()",
    ]) {
      fails(`{% ${tag} %}`, /is not allowed/);
    }
    for (const source of [
      "{{ n",
      "{{ }}",
      "{% if n %}",
      "{{ n | }}",
      "{{ 'a }}",
      "{{ (1 }}",
      "{{ 1 2 }}",
      "{{ r/a/ }}",
    ]) {
      fails(source, /./);
    }
  });

  it("places evaluation errors in their expression", () => {
    const error = fails("{{ n }}\n  {{ n + text }}", /cannot add/);
    assert.deepEqual([error.line, error.expression], [2, "{{ n + text }}"]);
    assert.match(error.describe(), /line 2/);
  });

  it("decides guards by native truth and by the words that mean no", () => {
    const holds = ["n == 7", "{{ yes }}", true, "{{ list }}", "'anything'", "{{ n }} > x", "half"];
    const not = [
      "n == 8",
      "{{ no }}",
      false,
      "x.y",
      "",
      "{{ empty }}",
      "{{ [] }}",
      "zero",
      "nothing",
    ];
    for (const when of holds) assert.equal(isTrue(when, scope), true, String(when));
    for (const when of not) assert.equal(isTrue(when, scope), false, String(when));
    for (const word of ["False", " 0 ", "no", "none", "null", "OFF", "{}", "[]", ""]) {
      assert.equal(isTrue("{{ w }}", scopeOf({ w: word })), false, word);
      assert.equal(isTrue("{{ w }}{{ '' }}", scopeOf({ w: word })), false, word);
    }
    assert.throws(() => isTrue("{{ 1 + 'a' }}", scope), TemplateError);
  });

  it("passes text without tags through and caches what it compiles", () => {
    assert.equal(hasTemplate("a { b } %"), false);
    assert.equal(evaluate("a } b", scope), "a } b");
    assert.equal(compileTemplate("{{ cached }}"), compileTemplate("{{ cached }}"));
  });
});
