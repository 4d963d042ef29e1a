// Frames: one command that carries several iterations; what a report settles, what a death leaves.
import {
  fenced,
  ofCommand,
  type Command,
  type FrameReport,
  type GiveBack,
  type OutcomeInput,
} from "../../schemas/command.ts";
import { handOff } from "../../schemas/hand-over.ts";
import type { TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import { acceptance, readSets, type Sets } from "../../schemas/accepted.ts";
import { goOn, tallyOf } from "./advance.ts";
import { fromRanges, toRanges } from "../../schemas/ranges.ts";
import { evolve } from "./evolve.ts";
import { giveBack, hasBudget, mayHandOver } from "../../schemas/loop-parked.ts";
import { fork, type Running } from "./state.ts";

/**
 * Facts of a frame's report: its items, and with the last report whatever that makes room for.
 * An item is accepted iff the delivery is current and the item is not yet done (design §9).
 */
export function decideFrame(
  input: OutcomeInput,
  given: FrameReport,
  state: Running,
  context: TurnContext,
): NewEvent[] {
  const command = fenced(input, state.open.get(input.command_id));
  const { report, back } = budgeted(input, given, state);
  const { frame } = command;
  if (!frame) throw malformed(input, "is no frame");
  const sets = settledBy(input, report, frame);
  const items = [...sets.ok, ...sets.failed];
  const known = items.filter(index => state.done.has(index) || state.failed.has(index));
  // The same report again; one that is only partly known is of another time.
  if (known.length > 0 && known.length === items.length && !report.final) return [];
  if (known.length > 0) throw malformed(input, "names items that are done");
  if (back && items.length === 0) return [giveBack(command, back, state, context)];
  const { fact } = acceptance(command, input, { loop_id: state.loop_id, sets });
  const { ok, failed, final } = report;
  const meta = { ...fact.meta, ...frame, final, ok, failed };
  const committed: NewEvent = { ...fact, event_type: "frame.committed", meta };
  const after = evolve(fork(state), committed, context.now) as Running;
  if (back) return [committed, giveBack(command, back, after, context)];
  const facts = [committed, ...goOn(after, tallyOf(after))];
  return report.final && mayHandOver(state) ? handOff(facts, input) : facts;
}

/**
 * A report that ends with an item whose failure may pass: with budget left that item is not among
 * the failed, and the frame is given back; without, it is over, and the rest is issued again.
 */
function budgeted(
  { give_back }: OutcomeInput,
  report: FrameReport,
  state: Running,
): { report: FrameReport; back?: GiveBack } {
  if (!give_back) return { report };
  if (!hasBudget(state)) return { report: { ...report, final: true } };
  const failed = fromRanges(report.failed, 0, Infinity) ?? [];
  const others = toRanges(failed.filter(index => index !== give_back.index));
  return { report: { ...report, failed: others, final: false }, back: give_back };
}

function settledBy(
  input: OutcomeInput,
  report: FrameReport,
  { first, count }: NonNullable<Command["frame"]>,
): Sets {
  const sets = readSets(report, first, first + count);
  if (sets === "strange") throw malformed(input, "names items that are not the frame's");
  if (sets === "twice") throw malformed(input, "names an item twice");
  return sets;
}

function malformed({ command_id }: OutcomeInput, why: string): Rejected {
  return new Rejected(`the report of frame ${command_id} ${why}`, 422, { reason: "malformed" });
}

/**
 * A frame whose worker died is not offered again: one of its items may have killed it, and must not
 * take the others along. What is left of it is issued one by one.
 */
export function split(command: Command, lost: NewEvent, state: Running): NewEvent[] {
  const dropped: NewEvent = {
    event_type: "command.cancelled",
    node_name: command.step,
    meta: { ...ofCommand(command), loop_id: state.loop_id },
  };
  const facts = [lost, dropped];
  const after = facts.reduce((folded, fact) => evolve(folded, fact), fork(state)) as Running;
  return [...facts, ...goOn(after, tallyOf(after))];
}
