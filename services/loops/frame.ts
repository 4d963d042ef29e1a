// Frames: one command that carries several iterations; what a report settles, what a death leaves.
import {
  fenced,
  handOff,
  ofCommand,
  type Command,
  type FrameReport,
  type OutcomeInput,
} from "../../schemas/command.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { digestOf, digestText } from "../../schemas/loop-digest.ts";
import { fromRanges } from "../../schemas/ranges.ts";
import { goOn, tallyOf } from "./advance.ts";
import { evolve } from "./evolve.ts";
import { fork, type Running } from "./state.ts";

/**
 * Facts of a frame's report: its items, and with the last report whatever that makes room for.
 * An item is accepted iff the delivery is current and the item is not yet done (design §9).
 */
export function decideFrame(input: OutcomeInput, report: FrameReport, state: Running): NewEvent[] {
  const command = fenced(input, state.open.get(input.command_id));
  const { frame } = command;
  if (!frame) throw malformed(input, "is no frame");
  const { ok, broken } = settledBy(input, report, frame);
  const items = [...ok, ...broken];
  const known = items.filter(index => state.done.has(index) || state.failed.has(index));
  // The same report again; one that is only partly known is of another time.
  if (known.length > 0 && known.length === items.length && !report.final) return [];
  if (known.length > 0) throw malformed(input, "names items that are done");
  const { attempt } = command;
  const digest = digestOf({ attempt, result: input.result, ok, failed: broken });
  const committed = commit(command, input, { ...report, digest }, state);
  if (!report.final) return [committed];
  const after = evolve(fork(state), committed) as Running;
  return handOff([committed, ...goOn(after, tallyOf(after))], input);
}

function settledBy(
  input: OutcomeInput,
  { ok, failed }: FrameReport,
  { first, count }: NonNullable<Command["frame"]>,
): { ok: number[]; broken: number[] } {
  const succeeded = fromRanges(ok, first, first + count);
  const broken = fromRanges(failed, first, first + count);
  if (!succeeded || !broken) throw malformed(input, "names items that are not the frame's");
  const both = new Set(succeeded);
  if (broken.some(index => both.has(index))) throw malformed(input, "names an item twice");
  return { ok: succeeded, broken };
}

function malformed({ command_id }: OutcomeInput, why: string): Rejected {
  return new Rejected(`the report of frame ${command_id} ${why}`, 422, { reason: "malformed" });
}

function commit(
  command: Command,
  { worker_id, result, ctx, stats }: OutcomeInput,
  { ok, failed, final, digest }: FrameReport & { digest: bigint },
  { loop_id }: Running,
): NewEvent {
  const { first, count } = command.frame as NonNullable<Command["frame"]>;
  const context: JsonObject = { ...(ctx && { ctx }), ...(stats && { stats }) };
  return {
    event_type: "frame.committed",
    node_name: command.step,
    meta: {
      ...ofCommand(command),
      ...{ loop_id, first, count, final, ok, failed },
      delivery: command.delivery,
      worker_id,
      digest: digestText(digest),
    },
    ...(Object.keys(context).length > 0 ? { context } : {}),
    result,
  };
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
