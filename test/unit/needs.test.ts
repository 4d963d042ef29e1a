// What a step needs of its worker: how it is said, and who may be handed it.
import { strict as assert } from "node:assert";
import type { OutcomeInput } from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { needsOf } from "../../schemas/needs.ts";
import { issuesIn, refuses, step } from "../support/playbook-samples.ts";

describe("what a step requires", () => {
  it("is a list of capabilities, or capabilities and labels, beside what its tools need", () => {
    const needs = (fields: string) => needsOf(step(fields));
    assert.deepEqual(needs("tool: {kind: noop}"), []);
    assert.deepEqual(needs("spec: {requires: [gpu]}\ntool: {kind: noop}"), ["gpu"]);
    const both = "spec: {requires: {capabilities: [gpu], labels: {zone: eu, rank: 2}}}";
    assert.deepEqual(needs(`${both}\ntool: {kind: noop}`), ["gpu", "rank=2", "zone=eu"]);
    const python = 'tool: [{name: a, kind: noop}, {name: b, kind: python, code: "1"}]';
    assert.deepEqual(needs(python), ["python"]);
    assert.deepEqual(needs(`spec: {requires: [gpu, python]}\n${python}`), ["gpu", "python"]);
  });

  for (const bad of ["gpu", "[1]", "['a b']", "{gpu: true}", "{labels: [eu]}", "[a=b=c]"]) {
    it(`is refused as ${bad}, with what is expected`, () => {
      const issues = issuesIn(`spec: {requires: ${bad}}\ntool: {kind: noop}`);
      refuses(issues, { step: "s", field: /requires/, expected: /\[gpu\]/ });
    });
  }
});

describe("the next command of an outcome", () => {
  const issued = (requires?: string[]): NewEvent => ({
    event_type: "command.issued",
    meta: {
      ...{ command_id: "1:a:1:1", step: "a", activation: 1, attempt: 1, kind: "noop" },
      ...(requires && { requires }),
    },
  });
  const asks = (offers?: string[]) =>
    ({
      next: { worker_id: "w", incarnation: "i", claim_id: "c", ...(offers && { offers }) },
    }) as OutcomeInput;
  const taken = ([event]: NewEvent[]) => event !== undefined && "claim_id" in event.meta;

  it("is handed over only to a worker that offers what it needs", () => {
    assert.equal(taken(handOff([issued()], asks())), true);
    assert.equal(taken(handOff([issued(["gpu"])], asks(["gpu"]))), true);
    assert.equal(taken(handOff([issued(["gpu"])], asks(["python"]))), false);
    assert.equal(taken(handOff([issued(["gpu"])], asks())), false);
  });

  it("keeps what was said for the choice out of its row", () => {
    const [event] = handOff([issued()], asks(["gpu"]));
    assert.ok(event && !("offers" in event.meta));
  });
});
