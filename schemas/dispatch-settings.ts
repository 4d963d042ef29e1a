/** Settings of who gets which command: what workers offer, and how servers choose among them. */
import { isWord, WORD_EXPECTED } from "./needs.ts";
import { flag, list, pairs, seconds } from "./setting.ts";

const words = list(
  "NOETL_WORKER_CAPABILITIES",
  "What this worker can do beside the tools that it finds here, such as gpu",
);

export const DISPATCH_SETTINGS = {
  capabilities: {
    ...words,
    schema: words.schema.refine(all => all.every(isWord)),
    expected: WORD_EXPECTED,
  },
  labels: pairs("NOETL_WORKER_LABELS", "Where this worker is: zone=eu,tier=big; steps may ask"),
  capacityMs: seconds(
    "NOETL_WORKER_CAPACITY_SECONDS",
    15,
    "How often a worker says what it has room for, when nothing changes",
    0.1,
    60,
  ),
  isTargeted: flag(
    "NOETL_TARGETED_DISPATCH",
    true,
    "A command is offered to one worker with room for it first, then to all",
  ),
  patienceMs: seconds(
    "NOETL_TARGETED_DISPATCH_PATIENCE_SECONDS",
    0.5,
    "How long that worker is waited for",
    0.01,
    60,
  ),
};
