/** What the service of executions does with messages of an execution to itself, in a play. */
import type { MessageInput } from "../../schemas/decider.ts";
import { MACHINES, type Play } from "./execution-play.ts";

/** True for a message that the service answers. A play has no children unless a test says so. */
export function answeredAsService(play: Play, { type }: MessageInput): boolean {
  if (type === "cancel_children") play.ask({ type: "children_gone" });
  if (type === "pause_family") pauseFamily(play);
  return ["cancel_children", "pause_family", "resume_family", "follow"].includes(type);
}

function pauseFamily(play: Play): void {
  const { pause } = play.ask({ type: "describe" });
  if (pause?.is !== "asked") return;
  for (const { to, input } of pause.loops) {
    const sent = JSON.parse(JSON.stringify(input)) as MessageInput;
    play.send(to.stream_id, sent, MACHINES[to.actor]);
  }
  play.ask({ type: "family_paused", pause: pause.number });
}
