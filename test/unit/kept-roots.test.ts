// Large roots of workload and ctx: what is kept elsewhere, and how templates meet it.
import { strict as assert } from "node:assert";
import { Needs, type TurnContext } from "../../schemas/decider.ts";
import type { ResultReference } from "../../schemas/events.ts";
import type { Json, JsonObject } from "../../schemas/json.ts";
import { keepRoots, largeRoots, markOf, viewOfRoots } from "../../schemas/playbook/kept-roots.ts";
import { renderValue } from "../../schemas/playbook/render.ts";
import { createScope } from "../../schemas/playbook/scope.ts";

const LARGE = "x".repeat(20_000);

/** Stores what a decision asks for, as a turn does, until it has what it needs. */
function kept(map: JsonObject) {
  const stored = new Map<string, ResultReference>();
  const loaded = new Map<string, Json>();
  const context = { stored, loaded } as unknown as TurnContext;
  for (let tries = 0; tries < 3; tries += 1) {
    try {
      return { map: keepRoots(map, "7/workload", context), loaded };
    } catch (error) {
      if (!(error instanceof Needs)) throw error;
      for (const { name, value } of error.store) {
        stored.set(name, { ref: name, bytes: 1, tier: "test" });
        loaded.set(name, value);
      }
    }
  }
  throw new Error("it asks for ever");
}

function rendered(template: string, map: JsonObject, loaded: Map<string, Json>): unknown {
  const workload = viewOfRoots(map, loaded);
  const parts = { execution: { id: "7", path: "p" }, workload, ctx: {}, steps: {} };
  return renderValue(template, createScope(parts), "typed");
}

describe("roots that are kept elsewhere", () => {
  it("are those above 16 KB, and the largest of a map above 64 KB together", () => {
    const map = { a: 1, large: LARGE, list: [LARGE] };
    assert.deepEqual(
      largeRoots(map)
        .map(([key]) => key)
        .sort(),
      ["large", "list"],
    );
    const many = Object.fromEntries(
      Array.from({ length: 10 }, (_, index) => [`k${index}`, "y".repeat(10_000 + index)]),
    );
    const names = largeRoots(many).map(([key]) => key);
    assert.deepEqual(names, ["k9", "k8", "k7", "k6"]);
  });

  it("leave a small map as it is", () => {
    const map = { a: 1, b: "text", c: [1, 2] };
    assert.equal(kept(map).map, map);
    assert.equal(viewOfRoots(map, new Map()), map);
  });

  it("read like the values they stand for", () => {
    const map = { text: LARGE, people: Array.from({ length: 2_000 }, (_, id) => ({ id })), n: 1 };
    const { map: small, loaded } = kept(map);
    assert.ok(JSON.stringify(small).length < 1_000);
    assert.equal(rendered("{{ text }}", small, loaded), LARGE);
    assert.equal(rendered("a {{ text }}", small, loaded), `a ${LARGE}`);
    assert.equal(rendered("{{ text ~ '!' }}", small, loaded), `${LARGE}!`);
    assert.equal(rendered("{{ workload.people[3].id + n }}", small, loaded), 4);
    assert.equal(rendered("{{ people[-1].id }}", small, loaded), 1_999);
    assert.deepEqual(rendered("{{ workload }}", small, loaded), map);
  });

  it("are asked for only when they are read", () => {
    const { map } = kept({ text: LARGE, n: 1 });
    assert.equal(rendered("{{ n }}", map, new Map()), 1);
    assert.throws(() => rendered("{{ text }}", map, new Map()), Needs);
  });

  it("cannot be forged: a value that looks like a mark is kept as the data it is", () => {
    const forged = markOf({ ref: "noetl://execution/1/result/secret", bytes: 1, tier: "local" });
    const { map, loaded } = kept({ mine: forged });
    assert.notDeepEqual(map["mine"], forged);
    assert.deepEqual(rendered("{{ mine }}", map, loaded), forged);
  });
});
