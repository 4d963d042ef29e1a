// Random playbooks in random worlds, each the same again from the same seed.
import { Chaos } from "./chaos.ts";
import { Play } from "./execution-play.ts";
import { answerOf, randomFlow, randomOf } from "./random-flows.ts";
import { frameReply } from "./worker-replies.ts";

/** One world, played to its end: its seed says whether workers die for good and who may cancel. */
export function playWorld(seed: number): Chaos {
  const random = randomOf(seed);
  const flow = randomFlow(random);
  const run = Play.of(flow.yaml, {}, flow.more);
  run.thorough = seed % 10 === 0;
  // Frames grow where workers say what an item took.
  if (seed % 3 > 0) run.itemMs = 1;
  // Where the run's end is known beforehand, deaths must not decide it.
  const mayLose = seed % 4 === 1;
  run.settings.max_attempts = mayLose ? 2 : 1_000;
  return new Chaos(run, {
    random,
    answer: grant => frameReply(grant, one => answerOf(flow, one)),
    turns: Math.floor(random() * 150),
    mayCancel: seed % 4 === 2,
    mayPause: seed % 5 === 0,
  }).run();
}
