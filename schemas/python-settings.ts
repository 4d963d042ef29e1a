/** The python tool: how many interpreters there are, and what they may take. */
import { count, list, optional, seconds } from "./setting.ts";

export const PYTHON_SETTINGS = {
  command: optional("NOETL_PYTHON", "Python that runs python tasks; absent: python3 on the PATH"),
  processes: count(
    "NOETL_PYTHON_PROCESSES",
    0,
    "Python processes at once, one task each; 0 is the number of cores, 4 at least",
    0,
    1_000,
  ),
  queueMax: count("NOETL_PYTHON_QUEUE_MAX", 1_000, "Tasks that wait for a process", 0),
  timeoutMs: seconds("NOETL_PYTHON_TIMEOUT_SECONDS", 300, "Of one task, when it is silent"),
  timeoutMaxMs: seconds(
    "NOETL_PYTHON_TIMEOUT_MAX_SECONDS",
    86_400,
    "Cap on what a task may ask for",
  ),
  memoryMaxBytes: count(
    "NOETL_PYTHON_MEMORY_MAX_BYTES",
    1_073_741_824,
    "Memory of one process, bytes; 0 is no limit. Enforced on Linux",
    0,
    1e13,
  ),
  resultMaxBytes: count(
    "NOETL_PYTHON_RESULT_MAX_BYTES",
    33_554_432,
    "Largest result of a task as JSON, bytes",
    1_024,
    268_435_456,
  ),
  outputMaxBytes: count(
    "NOETL_PYTHON_OUTPUT_MAX_BYTES",
    65_536,
    "Kept of what a task prints on stdout, and of stderr, bytes",
    0,
    33_554_432,
  ),
  tasksMax: count("NOETL_PYTHON_TASKS_MAX", 1_000, "Tasks of a process before it is replaced"),
  idleMs: seconds("NOETL_PYTHON_IDLE_SECONDS", 60, "A process without tasks ends"),
  pass: list(
    "NOETL_PYTHON_ENV",
    "More environment variables that python tasks see; never those of the runtime itself",
  ),
} as const;
