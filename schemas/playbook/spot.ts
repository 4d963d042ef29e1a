/** Issues about a playbook that is parsed already, led back to where it was written. */
import type { Issue } from "../errors.ts";
import type { Place } from "./source.ts";

/** A step, a task of it, or a field of either (`loop.cursor`, `kind`); no step: the playbook. */
export interface Spot {
  step?: string;
  task?: string;
  field?: string;
}

/** What is known of a playbook's text: nothing, or what `readPlaybook` returns. */
export interface Whereabouts {
  file?: string;
  /** Where a part of the playbook was written; for what is not written, where it would belong. */
  place?(spot: Spot): Place;
}

/** An issue at a spot, with file, line and column as far as they are known. */
export function issueAtSpot(
  { file, place }: Whereabouts,
  spot: Spot,
  { message, expected, hint }: Pick<Issue, "message" | "expected" | "hint">,
): Issue {
  const { step, task, field } = spot;
  const inTask = task !== undefined && task !== `${step}_task` ? `task '${task}'` : undefined;
  const inTool = inTask ? [inTask, field] : [["tool", field].filter(Boolean).join(".")];
  const named = task === undefined ? field : inTool.filter(Boolean).join(", ");
  return {
    message,
    ...(file !== undefined && { file }),
    ...place?.(spot),
    ...(step !== undefined && { step }),
    ...(named && { field: named }),
    ...(expected && { expected }),
    ...(hint && { hint }),
  };
}
