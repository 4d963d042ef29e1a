/** Fan-outs of a play: their flow, and their run with the pauses between the attempts of shards. */
import type { Json } from "../../schemas/json.ts";
import { Play } from "./execution-play.ts";
import type { Answers } from "./worker-replies.ts";

/** No pause between two attempts is longer, in milliseconds. */
const PAUSE_MS = 100_000;

/** A fan-out `each` with arcs to a step for each end that it may come to. */
export function fanoutFlow(items: Json, fanout: object = {}, more = ""): string {
  return `
- step: each
  spec: {loop_mode: fanout, fanout: ${JSON.stringify(fanout)}${more}}
  loop: {in: ${JSON.stringify(items)}, iterator: i}
  tool: {kind: noop}
  next:
    arcs:
      - {step: aggregate, when: "{{ fanin.status == 'complete' }}"}
      - {step: handler, when: "{{ fanin.status == 'partial' }}"}
      - {step: rescue, when: "{{ fanin.status == 'failed' }}"}
- {step: aggregate, tool: {kind: noop}}
- {step: handler, tool: {kind: noop}}
- {step: rescue, tool: {kind: noop}}`;
}

/** Plays on until nothing rings and nothing waits. */
export function runOut(play: Play, table: Answers = {}): Play {
  for (;;) {
    play.run(table);
    play.now += PAUSE_MS;
    const woken = [...play.streams.keys()].map(id => play.wake(id).changed);
    if (!woken.some(Boolean)) return play;
  }
}

export function fanoutPlay(items: Json, fanout: object = {}, more = ""): Play {
  return Play.of(fanoutFlow(items, fanout, more));
}

/** The fan-in of the newest activation. */
export function faninOf(play: Play) {
  return play.all("loop.fanin.completed").at(-1)?.meta;
}
