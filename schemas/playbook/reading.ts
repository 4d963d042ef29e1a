/** What the readers of a playbook's parts share while one playbook is read. */
import type { Findings } from "./findings.ts";
import type { Task } from "./model.ts";
import type { Path } from "./source.ts";

export interface Reading extends Findings {
  /** All step names, known before the first step is read, so that arcs can point forwards. */
  stepNames: Set<string>;
  workbook: Map<string, WorkbookTask>;
  /** `executor.spec.loop_mode` and `executor.spec.fanout`, which steps inherit. */
  loopMode: "local" | "fanout";
  fanout: Record<string, unknown>;
  /** Where each step and each task was written, by `originKey`. */
  origins: Map<string, Path>;
}

export interface WorkbookTask {
  body: TaskBody;
  /** Where its tool is written. */
  path: Path;
}

/** A task before it has a label. */
export type TaskBody = Omit<Task, "label">;

/** The key of `Reading.origins`. Names may hold any character, so JSON keeps the two apart. */
export function originKey(step: string, task?: string): string {
  return JSON.stringify(task === undefined ? [step] : [step, task]);
}

/** Where the rules of a tool are written. */
export function rulesPath(tool: Path): Path {
  return [...tool, "spec", "policy", "rules"];
}

/** Which task of its pipeline a rule belongs to; without labels (a workbook task) jumps wait. */
export interface Pipeline {
  labels: string[];
  position: number;
}
