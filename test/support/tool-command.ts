/** Where a tool is told to be when a test calls it by itself. */
import type { ToolCommand } from "../../schemas/tool.ts";

export const TOOL_COMMAND: ToolCommand = {
  execution_id: "1",
  command_id: "1:work:1:1",
  step: "work",
  activation: 1,
  task: "work_task",
  idempotency_key: "1:work:1:work_task:1",
  attempt: 1,
  delivery: 1,
};
