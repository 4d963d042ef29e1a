// A frame at its worker: items one after the other, told to the owner as they are done.
import type { GiveBack, OutcomeInput } from "../../schemas/command.ts";
import type { JsonObject } from "../../schemas/json.ts";
import { emptyBatch, isDue, record, reportOf, withinBounds, type ToldFrame } from "./batch.ts";
import { leftOf } from "./items.ts";
import type { PipelineOutcome } from "./pipeline.ts";
import { giveBackOf, runItem, writesOf, type OpenCommand } from "./run.ts";

/**
 * Runs a frame's items in order, and stops when more have failed than may. `flush` tells the owner,
 * and answers false when the frame is no longer this worker's. An abort tells what is done, and
 * throws.
 */
export async function runFrame(
  command: OpenCommand,
  flush: (report: ToldFrame & Pick<OutcomeInput, "give_back">) => Promise<boolean>,
): Promise<void> {
  const { frame } = command.grant;
  const { signal, turns } = command.options;
  await turns.begin();
  let batch = emptyBatch();
  let seen: JsonObject = {};
  let flushes = 0;
  let failures = 0;

  async function tell(final: boolean, give_back?: GiveBack): Promise<boolean> {
    flushes += 1;
    const place = `f${frame?.first}-${frame?.count}-${flushes}`;
    const { numbers, ...report } = await reportOf(command, batch, place);
    batch = emptyBatch();
    return flush({
      ...{ ...report, frame: { ...numbers, final } },
      ...(give_back && { give_back }),
    });
  }

  for (const item of leftOf(command.grant)) {
    const { index } = item;
    let outcome: PipelineOutcome;
    try {
      signal.throwIfAborted();
      outcome = await runItem(command, item, frame?.sequential ? seen : {});
    } catch (error) {
      if (batch.count > 0) await tell(false);
      throw error;
    }
    const back = giveBackOf(outcome);
    if (back) {
      // Among the failed, for an owner whose budget is spent by now.
      record(batch, index, outcome, {});
      return void (await tell(false, { ...back, index }));
    }
    const fitting = withinBounds(outcome);
    const { ctx = {} } = await writesOf(command, fitting, index);
    seen = { ...seen, ...ctx };
    if (fitting.status === "error") failures += 1;
    record(batch, index, fitting, ctx);
    if (failures > (frame?.tolerance ?? 0)) break;
    if (isDue(batch) && !(await tell(false))) return;
    // Quick items must not keep the event loop from beats and other commands.
    const turn = turns.pass();
    if (turn) await turn;
  }
  await tell(true);
}
