/** The python tool: a playbook's own code, in Python processes that are kept warm. */
import { availableParallelism } from "node:os";
import type { Service, ServiceSchema } from "moleculer";
import { findPython, PYTHON_REMEDY } from "../../mixins/python.ts";
import { configFailure, readPositive, toolAction, ToolFailure } from "../../mixins/tool.ts";
import type { ToolLimits } from "../../mixins/tool.ts";
import type { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { programEnvironment } from "../../schemas/env.ts";
import type { ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import { envelopeOf } from "./outcome.ts";
import { PythonPool } from "./pool.ts";
import { PythonProcess, type PythonTask, type Run } from "./process.ts";
import { readEnvironment, readProgram } from "./source.ts";

export interface PythonToolOptions {
  /** The interpreter; absent: `python3` on the PATH. */
  command?: string | undefined;
  /** All that code sees of our environment, beside what its task adds. */
  environment: Record<string, string>;
  /** Processes at once, one task each; 0 is the number of cores, 4 at least. */
  processes: number;
  /** Tasks that wait for one; beyond it QUEUE_FULL. */
  queueMax: number;
  /** Of one task, without its wait for a process: when it is silent, and the cap. */
  timeoutMs: number;
  timeoutMaxMs: number;
  /** Of one process (RLIMIT_DATA); 0 is no limit. */
  memoryMaxBytes: number;
  /** What one task may return; beyond it is an error. */
  resultMaxBytes: number;
  /** What is kept of each of a task's outputs; the middle of a longer one is left out. */
  outputMaxBytes: number;
  /** Tasks of one process, after which it is replaced. */
  tasksMax: number;
  idleMs: number;
  /** Script files are read from below this folder. */
  scriptRoot: string;
}

/** Code that waits needs more processes than there are cores. */
const PROCESSES_MIN = 4;

export const PYTHON_DEFAULTS: Omit<PythonToolOptions, "environment"> = {
  processes: 0,
  queueMax: 1_000,
  timeoutMs: 300_000,
  timeoutMaxMs: 86_400_000,
  memoryMaxBytes: 1_073_741_824,
  resultMaxBytes: 33_554_432,
  outputMaxBytes: 65_536,
  tasksMax: 1_000,
  idleMs: 60_000,
  scriptRoot: ".",
};

/**
 * The service `tool.python`. Action `run`: `ToolRequest` with the fields of playbook-dsl §3.4 and
 * `timeout` (seconds) and `env`; answers an envelope whose `data` is the code's result, or
 * `{stdout, stderr}` when it gives none. Action `check`: `{version}` of the interpreter, or the
 * `{problem}` with it. Action `stats` (this process only): the processes.
 */
export function pythonTool(
  options: Partial<PythonToolOptions> & { limiter?: RateLimiter } = {},
): ServiceSchema {
  const settings: PythonToolOptions = {
    ...PYTHON_DEFAULTS,
    environment: programEnvironment(),
    ...options,
  };
  const processes = settings.processes || Math.max(PROCESSES_MIN, availableParallelism());
  const { limiter } = options;
  const limits: ToolLimits = {
    ...{ tool: "python", concurrency: processes, max_queue_size: settings.queueMax, limiter },
  };
  const pool = createPool(settings);
  let log: Service["logger"] | undefined;
  return {
    name: "tool.python",
    created(this: Service) {
      log = this.logger;
    },
    actions: {
      run: toolAction(limits, async (request, { signal }) =>
        runPython({ request, signal, settings, pool, log }),
      ),
      check: {
        visibility: "public",
        tracing: false,
        async handler() {
          const { command, environment } = settings;
          const found = await findPython({ command, environment });
          return "problem" in found ? found : { version: found.python.version };
        },
      },
      stats: { visibility: "protected", tracing: false, handler: () => pool.stats() },
    },
    stopped: () => pool.close(),
  };
}

/** The interpreter is looked for once, when the first task comes, and again while it is absent. */
function createPool(settings: PythonToolOptions): PythonPool {
  const { command, environment, tasksMax, idleMs } = settings;
  let search: ReturnType<typeof findPython> | undefined;

  async function start(): Promise<PythonProcess> {
    search ??= findPython({ command, environment });
    const found = await search;
    if ("problem" in found) {
      search = undefined;
      throw configFailure(`python cannot run here: ${found.problem}`, PYTHON_REMEDY);
    }
    const started = await PythonProcess.start({ ...settings, python: found.python.path });
    if (started instanceof PythonProcess) return started;
    search = undefined;
    const { problem: message } = started;
    throw new ToolFailure({ kind: "unknown", retryable: true, code: "PYTHON_START", message });
  }

  return new PythonPool({ start, tasksMax, idleMs });
}

interface PythonRun {
  request: ToolRequest;
  signal: AbortSignal | undefined;
  settings: PythonToolOptions;
  pool: PythonPool;
  log: Service["logger"] | undefined;
}

async function runPython(run: PythonRun): Promise<ToolEnvelope> {
  const { request, signal, settings, pool } = run;
  const { config, input, iteration = {}, context, command } = request;
  const field = config["timeout"] === undefined ? "timeout_seconds" : "timeout";
  const seconds = readPositive(config[field], field, "seconds");
  const asked = seconds === undefined ? settings.timeoutMs : Math.ceil(seconds * 1_000);
  const timeoutMs = Math.min(asked, settings.timeoutMaxMs);
  const task: PythonTask = {
    ...(await readProgram(config, command, settings.scriptRoot)),
    ...{ input, iteration, context },
    libs: config["libs"] ?? undefined,
    env: readEnvironment(config["env"]),
  };
  const startedAt = performance.now();
  const ran = await pool.run(task, { timeoutMs, signal });
  try {
    const envelope = envelopeOf(ran, timeoutMs);
    logRun(run, ran, startedAt);
    return envelope;
  } catch (error) {
    logRun(run, ran, startedAt, (error as ToolFailure).failure?.code);
    throw error;
  }
}

/** What a task has printed is for whoever looks for a mistake in it: shown at debug, else sizes. */
function logRun(
  { request: { command }, log }: PythonRun,
  { stdout, stderr }: Run,
  startedAt: number,
  error_code?: string,
): void {
  const { execution_id, command_id, step, task, attempt } = command;
  const ids = { execution_id, command_id, step, task, attempt };
  const ms = Math.round(performance.now() - startedAt);
  const printed = { ...(stdout && { stdout }), ...(stderr && { stderr }) };
  log?.debug({ ...ids, ms, error_code, ...printed }, "tool.python");
}

export default pythonTool();
