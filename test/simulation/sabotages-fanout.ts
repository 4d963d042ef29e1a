// Rules of fan-outs, each with its switch.
import type { OutcomeInput } from "../../schemas/command.ts";
import { fanoutMachine } from "../../services/fanout/machine.ts";
import type { FanoutState } from "../../services/fanout/state.ts";
import { inMachine, onLoad, unfenced, type Sabotage } from "./sabotage.ts";

const openOf = (state: FanoutState) => (state.status === "running" ? state.open : undefined);

/** A command without its attempt. */
const shardOf = (commandId: string) => commandId.slice(0, commandId.lastIndexOf(":"));

/** What an earlier attempt came to is taken for what the present one comes to. */
function ofPresentAttempt(input: OutcomeInput, state: FanoutState): OutcomeInput {
  const open = openOf(state);
  if (!open || open.has(input.command_id)) return input;
  const shard = shardOf(input.command_id);
  const present = [...open.values()].find(one => shardOf(one.command_id) === shard);
  if (!present) return input;
  const { command_id, delivery } = present;
  return { ...input, command_id, delivery };
}

const SWITCHES: Sabotage[] = [
  {
    name: "no fence of shards",
    rule: "§4.5: an accepted outcome of a shard carries the current delivery",
    slowShare: 0.4,
    ...unfenced(fanoutMachine, openOf),
  },
  {
    name: "an earlier attempt's outcome",
    rule: "§4.5: every attempt of a shard is a command of its own",
    slowShare: 0.4,
    ...inMachine(fanoutMachine, was => ({
      decide(input, state, context) {
        const asked = input.type === "outcome" ? ofPresentAttempt(input, state) : input;
        return was.decide(asked, state, context);
      },
      // At once, so that what is said twice is heard while the next attempt is open.
      evolve(state, event, at, version) {
        const next = was.evolve(state, event, at, version);
        if (next.status !== "running") return next;
        for (const [place, retry] of next.retries)
          next.retries.set(place, { ...retry, retry_at: at });
        return next;
      },
    })),
  },
  {
    name: "a shard counted twice",
    rule: "§4.6: a shard is exactly one of succeeded and failed",
    ...inMachine(fanoutMachine, was => ({
      evolve(state, event, at, version) {
        const next = was.evolve(state, event, at, version);
        const isShard = event.event_type === "loop.shard.done";
        if (isShard && next.status === "running" && next.retries.size > 0) next.succeeded += 1;
        return next;
      },
    })),
  },
  {
    name: "shards are counted in memory",
    rule: "§4.8: what is done is counted by the log",
    ...onLoad(fanoutMachine, state => {
      if (state.status === "running") state.succeeded = 0;
    }),
  },
  {
    name: "fan-in twice",
    rule: "§4.6: exactly one loop.fanin.completed per activation",
    ...inMachine(fanoutMachine, was => ({
      decide(input, state, context) {
        const facts = was.decide(input, state, context);
        const last = facts.at(-1);
        return last?.event_type === "loop.fanin.completed" ? [...facts, last] : facts;
      },
    })),
  },
];

export const OF_FANOUTS = SWITCHES.map((one): Sabotage => ({ ...one, kind: "fanout" }));
