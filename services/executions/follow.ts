// A child goes the way of those above it. One that was cancelled or paused while the child was
// being started has not met it, and who tells of a pause may be late: so the child looks up itself.
import { unlessOver } from "./control.ts";
import { endPause, goingPause, type Asking } from "./hold.ts";
import { streamOf } from "./host.ts";

/** Of whom a child asks, and the pause of that one which the child takes to be going on. */
interface Following {
  above: string;
  by?: string | undefined;
}

/** Cancels, pauses or goes on with a child as one above it does. */
export async function follow(asking: Asking, childId: string, { above, by }: Following) {
  const { host } = asking;
  const child = streamOf(childId);
  const found = await host.send(streamOf(above), { type: "describe" });
  if (found.status === "CANCELLED" || found.cancelling) {
    const reason = `its parent ${above} was cancelled`;
    await unlessOver(host.send(child, { type: "cancel", reason }));
    return { changed: true };
  }
  const going = goingPause(found);
  if (by !== undefined && by !== going) await unlessOver(endPause(asking, childId, { by }));
  if (going !== undefined) await unlessOver(host.send(child, { type: "pause", by: going }));
  return { changed: by !== going };
}
