// One switch for each rule that the simulation can see: with it on, some check must fail.
import type { StreamAppend } from "../../mixins/postgres/event.ts";
import type { Json } from "../../schemas/json.ts";
import { executionMachine, generationOf } from "../../services/executions/machine.ts";
import { isLive } from "../../services/executions/state.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import { deafToConflict, withoutProof } from "../support/sabotage.ts";
import {
  both,
  forgetful,
  inMachine,
  inRows,
  inStore,
  onLoad,
  unfenced,
  type Sabotage,
} from "./sabotage.ts";
import { OF_FANOUTS } from "./sabotages-fanout.ts";
import { OF_PAUSES } from "./sabotages-pause.ts";

const openOf = (state: Parameters<(typeof loopMachine)["fork"]>[0]) =>
  state.status === "running" ? state.open : undefined;
const commandsOf = (state: Parameters<(typeof executionMachine)["fork"]>[0]) =>
  isLive(state) ? state.commands : undefined;

/** Appends at whatever version the stream is by now. */
function blind({ append }: { append: (append: StreamAppend) => Promise<{ status: string }> }) {
  return (versionOf: (id: string) => number) => async (one: StreamAppend) => {
    for (;;) {
      const outcome = await append({ ...one, expected: versionOf(one.stream_id) });
      if (outcome.status !== "conflict") return outcome as never;
    }
  };
}

/** Rules of the log and of the turn. */
const OF_THE_LOG: Sabotage[] = [
  {
    name: "no key of a start",
    rule: "§4.4: a start with a key happens once",
    ...inStore(store => ({
      append({ start, ...append }) {
        const { key: _key, ...rest } = start ?? {};
        return store.append({ ...append, ...(start && { start: rest as typeof start }) });
      },
    })),
  },
  {
    name: "no version check",
    rule: "§5: appends are made at the version they were decided at; guards are left",
    ...inStore((store, { tables }) => ({
      append: blind(store)(id => tables.streams.get(id)?.version ?? 0),
    })),
  },
  {
    name: "no version check, no unique guard",
    rule: "§4.4: a command is issued at most once",
    ...inStore((store, { tables }) => {
      tables.guards = [];
      return { append: blind(store)(id => tables.streams.get(id)?.version ?? 0) };
    }),
  },
  {
    name: "half a decision",
    rule: "§4.3: the events of a decision are appended together or not at all",
    ...inStore(store => ({
      async append(append) {
        const [first, ...rest] = append.events;
        if (!first || rest.length === 0) return store.append(append);
        const outcome = await store.append({ ...append, events: [first], ended: false });
        if (outcome.status !== "committed") return outcome;
        const { start: _start, ...more } = append;
        return store.append({ ...more, expected: append.expected + 1, events: rest });
      },
    })),
  },
  { name: "deaf to conflict", rule: "§5 rule 1", ...inStore(store => deafToConflict(store)) },
  {
    name: "no proof of a refusal",
    rule: "§5 rule 2: who refuses has read the head",
    ...inStore(store => withoutProof(store)),
  },
  {
    name: "stale snapshot",
    rule: "§6: a snapshot is the state at its version",
    ...inStore(store => {
      const older = new Map<string, Json>();
      return {
        writeSnapshot(id, version, state) {
          const kept = older.get(id) ?? state;
          older.set(id, state);
          return store.writeSnapshot(id, version, kept);
        },
      };
    }),
  },
];

/** Rules of commands, loops and effects. */
const OF_ACTORS: Sabotage[] = [
  {
    name: "no fence",
    rule: "§4.5: an accepted outcome carries the current delivery",
    slowShare: 0.4,
    ...both(unfenced(loopMachine, openOf), unfenced(executionMachine, commandsOf)),
  },
  {
    name: "claims are forgotten",
    rule: "§5 rule 4: a claim is repeatable",
    ...both(forgetful(loopMachine, openOf), forgetful(executionMachine, commandsOf)),
  },
  {
    name: "ring before commit",
    rule: "§4.2: every message can be derived from a row",
    ...inStore((store, _world, { doorbell }) => ({
      append(append) {
        for (const event of append.events) {
          if (event.event_type !== "command.issued") continue;
          const { command_id, step, kind } = event.meta;
          const { execution_id, stream_id, kind: actor } = append;
          const ids = { execution_id, stream_id, command_id, step };
          doorbell.ring({ ...ids, actor: actor as "loops", kind, delivery: 0 });
        }
        return store.append(append);
      },
    })),
  },
  {
    name: "given before commit",
    rule: "§4.2: every message can be derived from a row",
    ...inStore((store, { members }, { nodeId, clock }) => ({
      append(append) {
        const { execution_id, stream_id, kind: actor } = append;
        for (const event of append.events) {
          if (event.event_type !== "command.issued" || !event.meta.assigned) continue;
          const { worker_id: nodeID, incarnation, claim_id, ...grant } = event.meta;
          const given = [{ claim_id, grant: { ...grant, execution_id, stream_id } }];
          const params = { actor, incarnation, at: clock.now(), given };
          const { broker } = members.get(nodeId) ?? {};
          broker?.call("worker.take", params, { nodeID }).catch(() => undefined);
        }
        return store.append(append);
      },
    })),
  },
  {
    name: "effects are not repeated",
    rule: "§5 rule 3: effects go out again on wake until they are acknowledged",
    ports: ({ settings }) => ({
      settings: { ...settings, command: { ...settings.command, reRingMs: 1e12 } },
    }),
  },
  {
    name: "no wake-up",
    rule: "§4.7: every non-terminal thing has a waker",
    ...inStore(store => ({
      append: ({ wake_at: _wake, ...append }) => store.append(append),
      setWake: () => Promise.resolve(),
    })),
  },
  {
    name: "counts in memory",
    rule: "§4.8: what is done is counted by the log",
    ...onLoad(loopMachine, state => {
      if (state.status === "running") state.doneCount = 0;
    }),
  },
  {
    name: "ctx is lost on takeover",
    rule: "§4.2: what is in memory may vanish at any instant",
    ...onLoad(executionMachine, state => {
      if (isLive(state)) state.ctx = {};
    }),
  },
  {
    name: "loop.done twice",
    rule: "§4.6: exactly one loop.done per activation",
    ...inMachine(loopMachine, was => ({
      decide(input, state, context) {
        const facts = was.decide(input, state, context);
        const last = facts.at(-1);
        return last?.event_type === "loop.done" ? [...facts, last] : facts;
      },
    })),
  },
  {
    name: "a redrive of whatever end",
    rule: "§4.6: a redrive is of the end that was seen",
    ...inMachine(executionMachine, was => ({
      decide(input, state, context) {
        if (input.type !== "redrive" || isLive(state)) return was.decide(input, state, context);
        return was.decide({ ...input, generation: generationOf(state) }, state, context);
      },
    })),
  },
  {
    name: "cancelled before it is so",
    rule: "§9: CANCELLED is shown when nothing can start",
    ...inMachine(executionMachine, was => ({
      decide(input, state, context) {
        const facts = was.decide(input, state, context);
        if (input.type !== "cancel" || facts.length === 0 || !isLive(state)) return facts;
        const meta = { generation: state.generation };
        return [...facts, { event_type: "execution.cancelled", meta }];
      },
    })),
  },
];

/** Rules of the projection. */
const OF_THE_PROJECTION: Sabotage[] = [
  {
    name: "no version of a row",
    rule: "§6: an event is applied only as the next of its stream",
    ...inRows(rows => ({
      async read(ids) {
        const found = await rows.read(ids);
        return found.map(row => ({ ...row, version: Math.max(0, row.version - 1) }));
      },
    })),
  },
  {
    name: "two holders of a shard",
    rule: "§6: a writer whose epoch is old changes nothing",
    ...inRows((rows, { tables }) => ({
      async hold(options) {
        const held = await rows.hold(options);
        const { epoch = 1, tx = "0", event_id = "0" } = tables.checkpoints.get(options.shard) ?? {};
        return held ?? { shard: options.shard, epoch, position: { tx, event_id } };
      },
      write(claim, changed) {
        const epoch = tables.checkpoints.get(claim.shard)?.epoch ?? claim.epoch;
        return rows.write({ ...claim, epoch }, changed);
      },
    })),
  },
  {
    name: "hints are all there is",
    rule: "§6: the log is followed",
    ...inRows(() => ({ follow: position => Promise.resolve({ events: [], position }) })),
  },
  {
    // Hints may be lost at any time; without them only the log brings what is committed late.
    name: "no watermark",
    rule: "§6: the log is read below the oldest open transaction",
    ports: ({ feed }, { tables }) => {
      tables.hasWatermark = false;
      return { feed: { ...feed, push: () => undefined } };
    },
  },
];

export const SABOTAGES: Sabotage[] = [
  ...OF_THE_LOG,
  ...OF_ACTORS,
  ...OF_FANOUTS,
  ...OF_PAUSES,
  ...OF_THE_PROJECTION,
];
