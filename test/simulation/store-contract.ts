// What every event store does: the same sentences for the one in memory and for Postgres.
import { strict as assert } from "node:assert";
import type { EventStore, StreamName } from "../../mixins/event-store.ts";
import type { ProjectionStore } from "../../mixins/projection-store.ts";
import type { WorkerRows } from "../../mixins/worker-rows.ts";
import type { StreamAppend } from "../../mixins/postgres/event.ts";
import type { NewEvent } from "../../schemas/events.ts";

/** A store to be tried, and what the sentences need beside it. */
export interface Subject {
  store: EventStore;
  rows: ProjectionStore;
  workers: WorkerRows;
  newId(): string;
  /** Milliseconds of the store's clock. */
  now(): number;
  /** When the stream is woken; undefined without a head, null for nothing. */
  wakeOf(streamId: string): Promise<number | null | undefined>;
  failuresOf(streamId: string): Promise<number>;
}

const note = (index = 0): NewEvent => ({
  event_type: "call.partial",
  meta: { command_id: "c", chunk_index: index },
});

export class Contract {
  readonly of: Subject;

  constructor(subject: Subject) {
    this.of = subject;
  }

  stream(): StreamName {
    const id = this.of.newId();
    return { execution_id: id, stream_id: id };
  }

  /** An append of these events, or of one that says nothing. */
  appendOf(stream: StreamName, expected: number, more: Partial<StreamAppend> = {}): StreamAppend {
    const { events = [note() as StreamAppend["events"][number]], ...rest } = more;
    return {
      ...{ ...stream, kind: "loops", expected, ended: false, owner: "here" },
      wake_at: this.of.now() + 30_000,
      ...rest,
      events: events.map(event => ({ ...event, event_id: this.of.newId() })),
    };
  }

  async append(stream: StreamName, expected: number, more: Partial<StreamAppend> = {}) {
    return this.of.store.append(this.appendOf(stream, expected, more));
  }

  /** A stream of another execution's, or one of the same with facts of its own. */
  async facts(stream: StreamName, expected: number, ...facts: NewEvent[]) {
    return this.append(stream, expected, { events: facts as StreamAppend["events"] });
  }
}

export type Sentence = (contract: Contract) => Promise<void>;

const GUARDED: [string, NewEvent, NewEvent][] = [
  ["command.issued", issued("c1"), issued("c1")],
  ["a command's terminal", ended("command.completed"), ended("command.failed")],
  [
    "loop.done",
    { event_type: "loop.done", meta: { loop_id: "7" } } as NewEvent,
    { event_type: "loop.done", meta: { loop_id: "7", step: "s" } } as NewEvent,
  ],
  [
    "loop.fanin.completed",
    { event_type: "loop.fanin.completed", meta: { loop_id: "7" } } as NewEvent,
    { event_type: "loop.fanin.completed", meta: { loop_id: "7" } } as NewEvent,
  ],
  [
    "an execution's terminal",
    { event_type: "playbook.completed", meta: { generation: 0 } },
    { event_type: "execution.cancelled", meta: { generation: 0 } },
  ],
  ["the last report of a frame", frame(true), ended("command.cancelled")],
];

function issued(command_id: string): NewEvent {
  return { event_type: "command.issued", meta: { command_id } } as NewEvent;
}

function ended(event_type: string): NewEvent {
  return { event_type, meta: { command_id: "c2" } } as NewEvent;
}

function frame(final: boolean): NewEvent {
  return { event_type: "frame.committed", meta: { command_id: "c2", final } } as NewEvent;
}

const OF_APPENDS: Record<string, Sentence> = {
  "an append at the head's version is committed and read again": async contract => {
    const stream = contract.stream();
    const { store } = contract.of;
    assert.equal((await contract.append(stream, 0)).status, "committed");
    assert.equal((await contract.append(stream, 1)).status, "committed");
    const head = await store.readHead(stream.stream_id);
    const { stream_id, execution_id, kind, version, status, owner } = head ?? {};
    assert.deepEqual({ stream_id, execution_id }, stream);
    assert.deepEqual([kind, version, status, owner], ["loops", 2, "open", "here"]);
    const events = await store.readEvents(stream, 0, 10);
    assert.deepEqual(
      events.map(({ version, event_type }) => [version, event_type]),
      [1, 2].map(version => [version, "call.partial"]),
    );
    assert.equal((await store.readEvents(stream, 1, 10)).length, 1);
    assert.equal((await store.readEvents(stream, 0, 1)).length, 1);
    const other = { ...stream, execution_id: contract.of.newId() };
    assert.deepEqual(await store.readEvents(other, 0, 10), [], "nobody else's");
  },
  "an append at another version is a conflict, and nothing of it is written": async contract => {
    const stream = contract.stream();
    await contract.append(stream, 0);
    for (const expected of [0, 2]) {
      assert.equal((await contract.append(stream, expected)).status, "conflict");
    }
    assert.equal((await contract.append(contract.stream(), 1)).status, "conflict");
    assert.equal((await contract.of.store.readEvents(stream, 0, 10)).length, 1);
  },
  "of two appends at one version one is committed": async contract => {
    const stream = contract.stream();
    const both = await Promise.all([contract.append(stream, 0), contract.append(stream, 0)]);
    assert.deepEqual(both.map(one => one.status).sort(), ["committed", "conflict"]);
  },
  "there is no head of a stream that nobody made": async ({ of }) => {
    assert.equal(await of.store.readHead(of.newId()), undefined);
    assert.equal(await of.store.readSnapshot(of.newId()), undefined);
  },
  "a start writes its row, and its key once": async contract => {
    const key = `key-${contract.of.newId()}`;
    const [one, two] = [contract.stream(), contract.stream()];
    const start = { path: "p", playbook_version: 1, hash: "h", key, request_hash: "r" };
    const more = { kind: "executions", start: { ...start, key_ttl_seconds: 60 } };
    assert.equal((await contract.append(one, 0, more)).status, "committed");
    assert.equal((await contract.append(two, 0, more)).status, "conflict");
    const { store, rows } = contract.of;
    const found = await store.findStart(key);
    assert.deepEqual(found && { ...found }, { execution_id: one.execution_id, request_hash: "r" });
    assert.equal(await store.findStart("nobody's"), undefined);
    const [row, ...others] = await rows.read([one.execution_id, two.execution_id]);
    assert.deepEqual([row?.status, row?.version, row?.state, others], ["RUNNING", 0, {}, []]);
  },
  "commands that are over are found by their terminals": async contract => {
    const stream = contract.stream();
    const id = (name: string) => `${stream.execution_id}:s:1:${name}`;
    const fact = (event_type: string, name: string, more = {}) =>
      ({ event_type, meta: { command_id: id(name), ...more } }) as NewEvent;
    await contract.facts(
      stream,
      0,
      fact("command.issued", "1"),
      fact("command.completed", "2"),
      fact("frame.committed", "3", { final: false }),
      fact("frame.committed", "4", { final: true }),
    );
    const over = await contract.of.store.findOver(["1", "2", "3", "4"].map(id));
    assert.deepEqual(over.sort(), [id("2"), id("4")]);
  },
};

const OF_GUARDS = Object.fromEntries(
  GUARDED.map(([what, first, second]): [string, Sentence] => [
    `a second row for ${what} is refused, in another stream of the execution too`,
    async contract => {
      const stream = contract.stream();
      const other = { ...stream, stream_id: contract.of.newId() };
      assert.equal((await contract.facts(stream, 0, first)).status, "committed");
      const outcome = await contract.facts(other, 0, note(), second);
      assert.equal(outcome.status, "refused");
      assert.match(outcome.status === "refused" ? outcome.error.message : "", /unique/);
      assert.equal(await contract.of.store.readHead(other.stream_id), undefined);
      assert.equal((await contract.facts(stream, 0, second)).status, "conflict", "version first");
      const elsewhere = contract.stream();
      assert.equal((await contract.facts(elsewhere, 0, second)).status, "committed");
    },
  ]),
);

const OF_WAKES: Record<string, Sentence> = {
  "an append moves wake_at earlier only, and by more than a second": async contract => {
    const stream = contract.stream();
    const begun = contract.of.now();
    const wakeAt = async (expected: number, inMs: number) => {
      await contract.append(stream, expected, { wake_at: begun + inMs });
      return Math.round(((await contract.of.wakeOf(stream.stream_id)) ?? 0) - begun);
    };
    assert.equal(await wakeAt(0, 60_000), 60_000);
    assert.equal(await wakeAt(1, 90_000), 60_000);
    assert.equal(await wakeAt(2, 59_500), 60_000);
    assert.equal(await wakeAt(3, 30_000), 30_000);
  },
  "setWake moves it either way, at the version it was computed for": async contract => {
    const { store, wakeOf, now } = contract.of;
    const { stream_id, ...rest } = contract.stream();
    await contract.append({ stream_id, ...rest }, 0);
    const later = Math.ceil(now() / 1_000) * 1_000 + 90_000;
    await store.setWake(stream_id, 2, later);
    assert.notEqual(await wakeOf(stream_id), later, "of another version");
    await store.setWake(stream_id, 1, later);
    assert.equal(await wakeOf(stream_id), later);
  },
  "a stream that is due stays due: setWake leaves it": async contract => {
    const { store, wakeOf, now } = contract.of;
    const stream = contract.stream();
    const past = Math.floor(now() / 1_000) * 1_000 - 5_000;
    await contract.append(stream, 0, { wake_at: past });
    await store.setWake(stream.stream_id, 1, past + 90_000);
    assert.equal(await wakeOf(stream.stream_id), past);
  },
  "the reaper's pick takes what is due, once, and of one owner when asked": async contract => {
    const { store, now } = contract.of;
    const owner = `owner-${contract.of.newId()}`;
    const [due, later] = [contract.stream(), contract.stream()];
    await contract.append(due, 0, { wake_at: now() - 1_000, owner });
    await contract.append(later, 0, { owner });
    const options = { limit: 10, backoffMs: 60_000, owner };
    assert.deepEqual(await store.pickDue(options), [{ ...due, kind: "loops" }]);
    assert.deepEqual(await store.pickDue(options), []);
  },
  "a stream that ends is not woken, and ends at its version only": async contract => {
    const { store, wakeOf } = contract.of;
    const { stream_id, ...rest } = contract.stream();
    await contract.append({ stream_id, ...rest }, 0);
    assert.equal(await store.end(stream_id, 2), false);
    assert.equal(await store.end(stream_id, 1), true);
    assert.equal((await store.readHead(stream_id))?.status, "ended");
    assert.equal(await wakeOf(stream_id), null);
    await contract.append({ stream_id, ...rest }, 1);
    assert.equal((await store.readHead(stream_id))?.status, "open", "a redrive opens it again");
    assert.ok((await wakeOf(stream_id)) !== null);
    await contract.append({ stream_id, ...rest }, 2, { ended: true });
    assert.equal((await store.readHead(stream_id))?.status, "ended");
  },
  "streams go back to who had them, and are woken there; what others took is left":
    async contract => {
      const { store, wakeOf, now } = contract.of;
      const stream = contract.stream();
      const start = { path: "p", playbook_version: 1, hash: "h" };
      await contract.append(stream, 0, { start, owner: "there" });
      const owners = await store.readOwners(stream.execution_id);
      assert.deepEqual(owners, [{ stream_id: stream.stream_id, owner: "there" }]);
      await contract.append(stream, 1, { owner: "me" });
      await store.giveBack(owners, "another");
      assert.equal((await store.readHead(stream.stream_id))?.owner, "me");
      await store.giveBack(owners, "me");
      assert.equal((await store.readHead(stream.stream_id))?.owner, "there");
      assert.ok(((await wakeOf(stream.stream_id)) ?? Infinity) < now() + 1_000);
    },
  "a parked stream waits longer each time, until an append": async contract => {
    const { store, wakeOf, failuresOf, now } = contract.of;
    const stream = contract.stream();
    const { stream_id } = stream;
    await contract.append(stream, 0);
    for (const seconds of [2, 4, 8]) {
      await store.park(stream_id, "a bug");
      const waits = ((await wakeOf(stream_id)) ?? 0) - now();
      assert.ok(Math.abs(waits - seconds * 1_000) < 900, `${waits} ms, not ${seconds} s`);
    }
    assert.equal(await failuresOf(stream_id), 3);
    await contract.append(stream, 1);
    assert.equal(await failuresOf(stream_id), 0);
  },
};

/** The sentences about the log and its heads, by name. */
export const OF_STREAMS: Record<string, Sentence> = {
  ...OF_APPENDS,
  ...OF_GUARDS,
  ...OF_WAKES,
};
