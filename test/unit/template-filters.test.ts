/** Filters: Jinja's, with the differences of the playbook language. */
import { strict as assert } from "node:assert";
import { TemplateError, evaluate, renderText } from "../../schemas/playbook/template.ts";
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

describe("template filters", () => {
  it("convert numbers without losing digits", () => {
    gives({
      "'12.7' | int": 12,
      "'abc' | int": 0,
      "nothing | int": 0,
      "x | int": 0,
      "'' | int": 0,
    });
    gives({ "id | int": "508192345678901234", "(id | int) + 1": "508192345678901235" });
    gives({ "(id | int) > 0": true, "yes | int": 1, "'ff' | int(0, 16)": 255, "' 5 ' | int": 5 });
    gives({
      "'1.5' | float": 1.5,
      "'x' | float": 0,
      "-3 | abs": 3,
      "2.5 | round": 2,
      "2.567 | round(1)": 2.6,
    });
    gives({ "2.1 | round(0, 'ceil')": 3, "digits | int + 1": 43 });
  });

  it("default replaces none and undefined, and falsy values when asked", () => {
    gives({
      "x | default(1)": 1,
      "nothing | d('a')": "a",
      "'' | default('a')": "",
      "'' | default('a', true)": "a",
    });
    gives({
      "zero | default(5)": 0,
      "x.y | default([])": [],
      "x | default": "",
      "no | default(boolean=true, default_value=2)": 2,
    });
  });

  it("write JSON plainly", () => {
    gives({
      "text | tojson": '"it\'s"',
      "x | tojson": "null",
      "{'a': '<&>'} | tojson": '{"a":"<&>"}',
    });
    gives({ "'[1]' | fromjson": [1], "map.nested | tojson(indent=2)": '{\n  "deep": "v"\n}' });
    gives({ "rows[0] | tojson | replace('\"', '')": "{id:2,name:b,tags:[x]}" });
    gives({ "[x, nothing] | tojson": "[null,null]", "{'a': x} | tojson": '{"a":null}' });
    fails("{{ text | fromjson }}", /not JSON/);
  });

  it("work on text", () => {
    gives({
      'text | replace("\'", "\'\'")': "it''s",
      "n | replace(7, 8)": "8",
      "'aaa' | replace('a', '$&', 2)": "$&$&a",
    });
    gives({
      "'a b' | title": "A B",
      "'aB' | capitalize": "Ab",
      "' x ' | trim": "x",
      "'xxaxx' | trim('x')": "a",
    });
    gives({
      "'A' | lower": "a",
      "yes | string | lower == 'true'": true,
      "map.nested | string": '{"deep":"v"}',
    });
    gives({
      "'a,b,c' | split(',', 1)": ["a", "b,c"],
      "'a  b' | split": ["a", "b"],
      "'abc' | reverse": "cba",
    });
    gives({
      "'aé' | b64encode": "YcOp",
      "'YcOp' | b64decode": "aé",
      "'a b/c&' | urlencode": "a%20b/c%26",
    });
    gives({
      "{'a': 1, 'b': 'x y'} | urlencode": "a=1&b=x%20y",
      "'<a>' | e": "&lt;a&gt;",
      "'a\\nb' | indent(2)": "a\n  b",
    });
    gives({
      "'one two three' | truncate(8, false, '..', 0)": "one..",
      "'a b' | wordcount": 2,
      "'x' | safe": "x",
    });
    gives({ "'a' | md5": "0cc175b9c0f1b6a831c399e269772661" });
  });

  it("work on lists and maps", () => {
    gives({
      "map | length": 3,
      "x | length": 0,
      "'aé😀' | length": 3,
      "list | sort": [1, 2, 3],
      "list | first": 3,
    });
    gives({
      "list | last": 2,
      "list | sum": 6,
      "list | min": 1,
      "list | max": 3,
      "list | reverse": [2, 1, 3],
    });
    gives({
      "rows | map(attribute='id') | list": [2, 1],
      "rows | map(attribute='name') | map('lower') | join(',')": "b,a",
    });
    gives({
      "rows | sort(attribute='name') | map(attribute='id') | list": [1, 2],
      "rows | sum(attribute='id')": 3,
    });
    gives({
      "rows | selectattr('id', 'gt', 1) | map(attribute='name') | first": "b",
      "rows | rejectattr('tags') | length": 1,
    });
    gives({
      "[1, 2, 3] | select('odd') | list": [1, 3],
      "[0, 1] | select | list": [1],
      "[1, 2] | reject('eq', 1) | list": [2],
    });
    gives({
      "['a', 'A', 'b'] | unique | list": ["a", "b"],
      "[1, 2, 3] | batch(2) | list": [[1, 2], [3]],
      "[1, 2, 3] | slice(2)": [[1, 2], [3]],
    });
    gives({
      "rows | groupby('name') | map(attribute='grouper') | list": ["A", "b"],
      "{'b': 1, 'a': 2} | dictsort": [
        ["a", 2],
        ["b", 1],
      ],
    });
    gives({
      "map | items | first": ["a", 1],
      "map.nested | keys": ["deep"],
      "map.nested | values": ["v"],
      "map | get('zz', 4)": 4,
    });
    gives({
      "[[1, 2], [3, 4]] | map(attribute=0) | list": [1, 3],
      "[1, none, 'x' ~ x] | join('-')": "1--x",
      "[] | first": undefined,
    });
    assert.equal(
      renderText(
        "{% for g, items in rows | groupby('id') %}{{ g }}={{ items | length }};{% endfor %}",
        scope,
      ),
      "1=1;2=1;",
    );
    fails("{{ 5 | join }}", /not iterable/);
    fails("{{ list | map('lenght') }}", /unknown filter 'lenght'/, /length/);
    fails("{{ [1, 'a'] | sort }}", /no order/);
  });
});
