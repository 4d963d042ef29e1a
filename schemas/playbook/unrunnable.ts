/** What is good grammar and cannot run in this build: refused when a playbook is registered. */
import type { Issue } from "../errors.ts";
import type { ToolKind } from "../tool.ts";
import type { Playbook } from "./model.ts";
import { issueAtSpot } from "./spot.ts";
import type { Whereabouts } from "./spot.ts";

/**
 * An issue for each tool kind that this build cannot run; none when the playbook can run. `where`
 * (a ReadPlaybook) adds file, line and column.
 */
export function refuseUnrunnable(
  playbook: Playbook,
  runnableKinds: readonly ToolKind[],
  where: Whereabouts = {},
): Issue[] {
  const issues: Issue[] = [];
  for (const step of Object.values(playbook.steps)) {
    for (const task of step.tasks) {
      if (runnableKinds.includes(task.kind)) continue;
      const spot = { step: step.name, task: task.label, field: "kind" };
      issues.push(
        issueAtSpot(where, spot, {
          message: `tools of kind '${task.kind}' are not available in this build`,
          expected: runnableKinds.join(" | "),
        }),
      );
    }
  }
  return issues;
}

/** Why tools of a kind would fail where their commands run, and what to do about it. */
export type Lacking = Partial<Record<ToolKind, Pick<Issue, "message" | "hint">>>;

/** An issue for each task whose kind lacks something. */
export function refuseLacking(
  playbook: Playbook,
  lacking: Lacking,
  where: Whereabouts = {},
): Issue[] {
  return Object.values(playbook.steps).flatMap(step =>
    step.tasks.flatMap(task => {
      const issue = lacking[task.kind];
      const spot = { step: step.name, task: task.label, field: "kind" };
      return issue ? [issueAtSpot(where, spot, issue)] : [];
    }),
  );
}

/** Whether a task of this kind is in the playbook. */
export function usesKind(playbook: Playbook, kind: ToolKind): boolean {
  return Object.values(playbook.steps).some(step => step.tasks.some(task => task.kind === kind));
}
