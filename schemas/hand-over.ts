// The command that a worker is given with the answer to an outcome.
import type { OutcomeInput } from "./command.ts";
import type { NewEvent } from "./events.ts";
import { serves } from "./needs.ts";
import { classOf } from "./work-class.ts";

/**
 * Facts of an outcome; the first command among them that its worker has room for is issued as held
 * by it, when it asks for the next.
 */
export function handOff(events: NewEvent[], { next }: OutcomeInput): NewEvent[] {
  if (!next) return events;
  const { only, offers = [], ...claim } = next;
  const place = events.findIndex(
    ({ event_type, meta }) =>
      event_type === "command.issued" &&
      (!only || classOf(meta.kind) === only) &&
      serves(offers, meta.requires),
  );
  const issued = events[place];
  if (issued?.event_type !== "command.issued") return events;
  return events.with(place, { ...issued, meta: { ...issued.meta, delivery: 1, ...claim } });
}
