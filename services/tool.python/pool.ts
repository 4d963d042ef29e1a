/** The Python processes of this process: warm ones wait, worn ones make room for new ones. */
import type { PythonProcess, PythonTask, Run } from "./process.ts";

export interface PoolOptions {
  /** Starts a process. Throws what its caller is to be told. */
  start(): Promise<PythonProcess>;
  /** Tasks of one process, after which it is replaced. */
  tasksMax: number;
  /** A process that has had nothing to do for so long ends. */
  idleMs: number;
}

export interface PoolStats {
  idle: number;
  busy: number;
  started: number;
}

/** How many run at once is for the caller to bound: the bulkhead of the action does. */
export class PythonPool {
  readonly #options: PoolOptions;
  readonly #idle: PythonProcess[] = [];
  readonly #timers = new Map<PythonProcess, NodeJS.Timeout>();
  readonly #busy = new Set<PythonProcess>();
  #started = 0;
  #isClosed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Runs a task in a process of its own for as long as it takes. */
  async run(
    task: PythonTask,
    how: { timeoutMs: number; signal?: AbortSignal | undefined },
  ): Promise<Run> {
    const one = this.#waiting() ?? (await this.#start());
    this.#busy.add(one);
    try {
      const run = await one.run(task, how);
      const isWorn = run.how !== "replied" || run.reply.worn !== null || !run.reply.marked;
      if (isWorn || this.#isClosed || one.tasks >= this.#options.tasksMax) await one.kill();
      else this.#rest(one);
      return run;
    } finally {
      this.#busy.delete(one);
    }
  }

  stats(): PoolStats {
    return { idle: this.#idle.length, busy: this.#busy.size, started: this.#started };
  }

  /** Ends all of them, whatever they do. Repeatable. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    await Promise.all([...this.#idle.splice(0), ...this.#busy].map(one => one.kill()));
  }

  /** The one that rested last: the others may reach the end of their time. */
  #waiting(): PythonProcess | undefined {
    for (let one = this.#idle.pop(); one; one = this.#idle.pop()) {
      clearTimeout(this.#timers.get(one));
      this.#timers.delete(one);
      if (!one.isEnded) return one;
    }
    return undefined;
  }

  async #start(): Promise<PythonProcess> {
    const one = await this.#options.start();
    this.#started += 1;
    return one;
  }

  #rest(one: PythonProcess): void {
    this.#idle.push(one);
    const leave = () => {
      this.#timers.delete(one);
      const at = this.#idle.indexOf(one);
      if (at >= 0) this.#idle.splice(at, 1);
      void one.kill();
    };
    // It keeps nobody from ending.
    this.#timers.set(one, setTimeout(leave, this.#options.idleMs).unref());
  }
}
