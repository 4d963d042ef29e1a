// Rules of pauses, each with its switch.
import { executionMachine } from "../../services/executions/machine.ts";
import { isLive } from "../../services/executions/state.ts";
import { fanoutMachine } from "../../services/fanout/machine.ts";
import { loopMachine } from "../../services/loops/machine.ts";
import { both, inMachine, type Sabotage } from "./sabotage.ts";

export const OF_PAUSES: Sabotage[] = [
  {
    name: "loops go on in a pause",
    rule: "§9: a pause is a request first; what is below has heard of it and begins nothing",
    ...both(
      inMachine(loopMachine, was => ({
        evolve(state, event, at, version) {
          if (event.event_type === "execution.paused") return state;
          return was.evolve(state, event, at, version);
        },
      })),
      inMachine(fanoutMachine, was => ({
        evolve(state, event, at, version) {
          if (event.event_type === "execution.paused") return state;
          return was.evolve(state, event, at, version);
        },
      })),
    ),
  },
  {
    name: "paused before it is so",
    rule: "§9: PAUSED is shown when nothing begins",
    ...inMachine(executionMachine, was => ({
      decide(input, state, context) {
        const facts = was.decide(input, state, context);
        const asked = facts.find(one => one.event_type === "execution.pause_requested");
        if (input.type !== "pause" || !asked || !isLive(state)) return facts;
        return [
          ...facts,
          { event_type: "execution.paused", meta: { pause: asked.meta.pause ?? 1 } },
        ];
      },
    })),
  },
  {
    name: "a pause is forgotten on takeover",
    rule: "§4.2: what is in memory may vanish at any instant",
    ...inMachine(executionMachine, was => ({
      thaw(frozen) {
        const state = was.thaw(frozen);
        if (isLive(state)) delete state.pause;
        return state;
      },
    })),
  },
];
