// Commands that are given to workers unasked: by whom they are issued, and what is done with those
// that are not taken.
import { strict as assert } from "node:assert";
import { Assignments, type Brought } from "../../mixins/assignments.ts";
import { issuedAs, assignments, rings } from "../../schemas/command.ts";
import type { Ring } from "../../schemas/decider.ts";
import type { EventOf, NewEvent } from "../../schemas/events.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";

const NAME = { execution_id: "1", stream_id: "1" };
const WORKER = { worker_id: "w", incarnation: "w-1" };
const holder = { ...WORKER, claim_id: "c" };
const grant = { command_id: "1:a:1:1" } as Grant;
const assignment = { command_id: grant.command_id, delivery: 1, holder };

function issued(step: string, more: object = {}): EventOf<"command.issued"> {
  const command_id = `1:${step}:1:1`;
  const meta = { command_id, step, activation: 1, attempt: 1, kind: "noop", ...more };
  return { event_type: "command.issued", node_name: step, meta };
}

/** A stream whose commands go to `able` in turn, and what it says and hears. */
function stream(able: (typeof WORKER | undefined)[], brought: Brought = "taken") {
  const asked: Ring[] = [];
  const forgotten: string[] = [];
  const told: object[] = [];
  let ids = 0;
  const assign = {
    choose: (ring: Ring) => able[asked.push(ring) - 1],
    forget: (id: string) => void forgotten.push(id),
    bring: () => Promise.resolve(brought),
  };
  const ports = { assign, kind: "executions" as const, ids: { next: () => `id-${(ids += 1)}` } };
  const one = new Assignments(ports, NAME, input => {
    told.push(input);
    return Promise.resolve({ grant });
  });
  const said = () => told.map(input => (input as { type: string }).type);
  return { one, asked, forgotten, told, said };
}

const claimOf = ({ meta }: NewEvent) => meta as { worker_id?: string; assigned?: boolean };

describe("a command that is issued", () => {
  it("is the own one of a worker with room to spare, and of nobody when there is none", () => {
    const { one, asked } = stream([WORKER, undefined]);
    const facts = one.issue([issued("a", { requires: ["gpu"] }), issued("b")]);
    const claim = { ...WORKER, delivery: 1, claim_id: "id-1", assigned: true };
    assert.deepEqual(facts[0], issued("a", { requires: ["gpu"], ...claim }));
    assert.deepEqual(facts[1], issued("b"));
    const ring = { ...NAME, actor: "executions", kind: "noop", delivery: 0 };
    assert.deepEqual(asked, [
      { ...ring, command_id: "1:a:1:1", step: "a", requires: ["gpu"] },
      { ...ring, command_id: "1:b:1:1", step: "b" },
    ]);
  });

  it("is left to who has asked for it with an outcome, and other facts are left alone", () => {
    const { one, asked } = stream([WORKER]);
    const handed = issued("a", { ...holder, delivery: 1 });
    const end = { event_type: "playbook.completed", meta: { generation: 0 } } as NewEvent;
    assert.deepEqual(one.issue([handed, end]), [handed, end]);
    assert.equal(asked.length, 0);
  });

  it("that is not committed gives its slot back", () => {
    const { one, forgotten } = stream([WORKER, WORKER]);
    one.issue([issued("a")]);
    one.settle(true);
    one.issue([issued("b")]);
    one.settle(false);
    one.settle(false);
    assert.deepEqual(forgotten, ["1:b:1:1"]);
  });

  it("is told of, not rung, until it is given back; then the other way round", () => {
    const { one } = stream([WORKER]);
    const [fact] = one.issue([issued("a")]) as [EventOf<"command.issued">];
    assert.equal(claimOf(fact).assigned, true);
    const command = issuedAs(fact.meta, fact.meta, 5);
    const to = { ...NAME, actor: "executions" as const };
    assert.equal([...rings([command], to)].length, 0);
    const [effect] = [...assignments([command])];
    assert.equal(effect?.kind, "assignment");
    const { holder: _, ...back } = command;
    assert.equal([...assignments([back])].length, 0);
    assert.equal([...rings([back], to)].length, 1);
  });
});

describe("a worker that was given a command", () => {
  it("is brought it with its grant, and that is all when it takes it", async () => {
    const { one, told } = stream([]);
    await one.tell(assignment);
    assert.deepEqual(told, [{ type: "claim", command_id: grant.command_id, ...holder }]);
  });

  it("and refuses it has it taken back", async () => {
    const { one, told } = stream([], "refused");
    await one.tell(assignment);
    const { command_id } = grant;
    assert.deepEqual(told[1], { type: "release", command_id, delivery: 1, worker_id: "w" });
  });

  it("and does not answer has it taken back at the first time", async () => {
    const { one, said } = stream([WORKER], "silent");
    one.issue([issued("a")]);
    one.settle(true);
    await one.tell(assignment);
    assert.deepEqual(said(), ["claim", "release"]);
  });

  it("and does not answer later keeps it: it may run it, and its lease decides", async () => {
    const { one, said } = stream([], "silent");
    await assert.rejects(one.tell(assignment), /worker w does not say whether it has 1:a:1:1/);
    assert.deepEqual(said(), ["claim"]);
  });
});
