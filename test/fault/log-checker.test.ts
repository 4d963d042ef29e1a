// The checker of the log is checked itself: it passes a real log and names each change to it.
import { strict as assert } from "node:assert";
import { findFaults, readLog, type Log, type LogEvent } from "../support/log-checker.ts";
import { assertSound } from "../support/log-checker.ts";
import { startNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const LOOP = `apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: few, path: test/few}
workflow:
  - step: start
    loop: {in: "{{ 5 }}", iterator: i, spec: {mode: parallel, max_in_flight: 2,
      policy: {exec: distributed}}}
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop}
`;

const is = (type: string) => (event: LogEvent) => event.event_type === type;

/** Each makes one change that no history may show, and what the checker must say of it. */
const DOCTORED: [string, (log: Log) => void, RegExp][] = [
  ["a version is missing", log => drop(log, is("command.claimed")), /version \d+ is not the next/],
  ["the last event is missing", log => void log.events.pop(), /but its head says/],
  ["a head has no events", log => void (log.events = []), /a head without events/],
  ["a stream is open and asleep", log => sleep(log), /nothing wakes it/],
  ["an event id comes twice", log => sameId(log), /is had by 2 events/],
  ["an execution ends twice", log => again(log, is("playbook.completed")), /2 terminals/],
  ["a row says another status", log => void (log.rows[0]!.status = "RUNNING"), /its row says/],
  ["a command is issued twice", log => again(log, is("command.issued")), /is issued twice/],
  ["a command was never issued", log => drop(log, is("command.issued")), /never issued/],
  ["a claim has an old delivery", log => set(log, "command.claimed", "delivery", 2), /delivery 2/],
  ["a held command is claimed", log => again(log, is("command.claimed")), /is claimed while/],
  ["a zombie's outcome counts", log => set(log, "command.completed", "delivery", 7), /delivery 7/],
  ["another worker's outcome counts", log => set(log, "command.completed", "worker_id", "x"), /x,/],
  ["a command ends twice", log => again(log, is("command.completed")), /after its command.comp/],
  ["a command never ends", log => drop(log, is("command.completed")), /has no terminal/],
  ["an iteration is accepted twice", log => set(log, LAST, "iter_index", 0), /0 is accepted twice/],
  ["a loop's counts are wrong", log => stats(log, { success: 4 }), /says 4 success, not 5/],
  ["a loop ends twice", log => again(log, is("loop.done")), /2 × loop.done/],
  ["a loop does not end", log => drop(log, is("loop.done")), /0 × loop.done/],
  ["a window is too wide", log => set(log, "loop.started", "max_in_flight", 1), /the window is 1/],
  ["a claim comes after the end", log => late(log), /is claimed after playbook.completed/],
  ["progress is not what was done", log => void (log.rows[0]!.loop!["start"]!.done = 3), /says 3/],
];

/** The last of the type, so that an index of it is a repetition. */
const LAST = "last command.completed";

describe("the checker of the log", () => {
  let store: TestDatabase;
  let sound: Log;

  before(async () => {
    store = await testDatabase({ migrated: true });
    const node = await startNode({ url: store.url });
    const { status, execution_id } = await node.run(LOOP);
    assert.equal(status, "COMPLETED");
    await assertSound(store.url, execution_id);
    sound = await readLog(store.url);
    await node.stop();
  });
  after(() => store.drop());

  it("finds no fault in a real log", () => {
    assert.deepEqual(findFaults(sound), []);
    assert.equal(sound.events.filter(is("command.completed")).length, 6);
  });

  for (const [what, doctor, said] of DOCTORED) {
    it(`says so when ${what}`, () => {
      const log = structuredClone(sound);
      doctor(log);
      const faults = findFaults(log);
      assert.ok(
        faults.some(fault => said.test(fault)),
        `it says ${JSON.stringify(faults)}`,
      );
    });
  }
});

/** Events of the loop first: there are more ways to be wrong in a stream of many commands. */
function find(log: Log, test: (event: LogEvent) => boolean): LogEvent {
  const of = (loop: boolean) =>
    log.events.find(event => test(event) && (event.stream_id !== event.execution_id) === loop);
  return of(true) ?? of(false)!;
}

function drop(log: Log, test: (event: LogEvent) => boolean): void {
  const event = find(log, test);
  log.events = log.events.filter(one => one !== event);
}

/** The same fact once more, right after the first. */
function again(log: Log, test: (event: LogEvent) => boolean): void {
  const event = find(log, test);
  const at = log.events.indexOf(event);
  log.events.splice(at + 1, 0, structuredClone(event));
}

function set(log: Log, type: string, field: string, value: unknown): void {
  const event =
    type === LAST
      ? log.events.filter(one => is("command.completed")(one) && "iter_index" in one.meta).at(-1)!
      : find(log, is(type));
  event.meta[field] = value;
}

function stats(log: Log, over: Record<string, number>): void {
  const { meta } = find(log, is("loop.done"));
  meta["stats"] = { ...(meta["stats"] as object), ...over };
}

function sleep(log: Log): void {
  Object.assign(log.heads[0]!, { status: "open", has_wake: false });
}

function sameId(log: Log): void {
  log.events[1]!.event_id = log.events[0]!.event_id;
}

function late(log: Log): void {
  find(log, is("command.claimed")).at += 3_600;
}
