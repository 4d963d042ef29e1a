// The claim of a cursor loop: the user's SQL, run by the postgres tool under the cursor's name.
import { errorType } from "../../schemas/errors.ts";
import type { OutcomeResult } from "../../schemas/events.ts";
import type { ClaimedRow, GrantedCursor } from "../../schemas/frozen-scope.ts";
import { isObject, type Json } from "../../schemas/json.ts";
import { partsOf } from "../../schemas/playbook/kept-roots.ts";
import type { Step, Task } from "../../schemas/playbook/model.ts";
import { configFailure, lostFailure } from "./failures.ts";
import { patiently } from "./patience.ts";
import type { PipelineOutcome } from "./pipeline.ts";
import { cutError, runTasks, type OpenCommand } from "./run.ts";

type Failed = { error: NonNullable<OutcomeResult["error"]> };

/** What templates see as `frame`, before it has rows. */
export function factsOf({ slot, round, limits }: GrantedCursor) {
  return { ...limits, slot, index: round - 1 };
}

/** The rows of a round. What fails is told, not thrown; only an abort throws. */
export async function claimRows(
  command: OpenCommand,
  cursor: GrantedCursor,
): Promise<{ rows: ClaimedRow[] } | Failed> {
  return cursor.left ? leftRows(command, cursor.left) : claimNew(command, cursor);
}

async function leftRows(
  command: OpenCommand,
  { rows, reference }: NonNullable<GrantedCursor["left"]>,
): Promise<{ rows: ClaimedRow[] } | Failed> {
  if (!reference) return { rows: (rows ?? []) as unknown as ClaimedRow[] };
  try {
    const kept = await patiently(command, () => command.runtime.values.load(reference));
    return { rows: kept as unknown as ClaimedRow[] };
  } catch (error) {
    if (errorType(error) !== "REJECTED") throw error;
    return { error: cutError(lostFailure(error as Error)) };
  }
}

async function claimNew(
  command: OpenCommand,
  cursor: GrantedCursor,
): Promise<{ rows: ClaimedRow[] } | Failed> {
  const { grant, scope, step, loaded } = command;
  const { slot, round } = cursor;
  const parts = { ...partsOf(scope, loaded), frame: factsOf(cursor) };
  const claim = { name: step.name, tasks: [taskOf(step)], pipeline: false, input: {} };
  const place = [`c${slot}`, round, grant.attempt, grant.delivery].join("-");
  const outcome = await runTasks(command, claim, parts, place);
  const rows = rowsOf(outcome);
  if (!Array.isArray(rows)) return rows;
  return { rows: rows.map((row, number) => ({ key: `${place}-${number}`, row })) };
}

const tasks = new WeakMap<Step, Task>();

/** The claim as a task; the same one for a step, whose templates are then read once. */
function taskOf(step: Step): Task {
  const known = tasks.get(step);
  if (known) return known;
  const { claim, auth, credential } = step.loop?.cursor ?? {};
  const alias = (auth ?? credential) as Task["auth"];
  const task: Task = {
    label: "claim",
    kind: "postgres",
    ...(alias !== undefined && { auth: alias }),
    ...{ input: {}, config: { query: claim }, rules: [], set: {} },
  };
  tasks.set(step, task);
  return task;
}

function rowsOf({ status, result, error }: PipelineOutcome): Json[] | Failed {
  if (status === "error") {
    const failure = error ?? configFailure("CURSOR_CLAIM", "it failed");
    return { error: cutError({ ...failure, message: `loop.cursor.claim: ${failure.message}` }) };
  }
  const { rows, columns } = isObject(result) ? result : {};
  if (Array.isArray(rows) && Array.isArray(columns) && columns.length > 0) return rows;
  const message = "loop.cursor.claim: it gives no rows; end it with RETURNING";
  return { error: configFailure("CURSOR_CLAIM", message) };
}
