/** One Python process: it runs tasks one after the other, and can be ended at any moment. */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { join } from "node:path";
import { parseJson, type Json } from "../../schemas/json.ts";
import { FrameReader, frameOf } from "./frames.ts";
import { Printed } from "./printed.ts";

const RUNNER = join(import.meta.dirname, "runner.py");
/** From the start of a process until it takes tasks. */
const READY_MS = 30_000;
/** What has been printed is read to its end, unless a task holds its output's other end open. */
const LAST_WORDS_MS = 1_000;
/** Of a reply beside its result: the failure of a task with its traceback. */
const REPLY_EXTRA_BYTES = 16 * 1024 * 1024;

export interface ProcessOptions {
  /** Path of the interpreter. */
  python: string;
  /** All that it is given of our environment. */
  environment: Record<string, string>;
  /** Of one process; 0 is no limit. */
  memoryMaxBytes: number;
  /** Of one result as JSON. */
  resultMaxBytes: number;
  /** Of each of a task's two outputs. */
  outputMaxBytes: number;
}

/** What the runner is asked. */
export interface PythonTask {
  code: string;
  /** What tracebacks call the code. */
  filename: string;
  input: Record<string, unknown>;
  iteration: Record<string, unknown>;
  context?: Record<string, unknown> | undefined;
  libs?: unknown;
  env: Record<string, string>;
}

/** What kind of failure it is: `cause_of` in noetl_runner/failure.py. */
export type PythonCause =
  "exception" | "syntax" | "result" | "library" | "memory" | "exit" | "timeout" | "connection";

/** What the runner answers: a result, or `none`, or an error. */
export interface Reply {
  result?: Json;
  none?: true;
  error?: {
    exception: string;
    message: string;
    /** Of the task's code; null when the failure is not in it. */
    line: number | null;
    cause: PythonCause;
    traceback: string;
  };
  /** Why the process should not be used again. */
  worn: string | null;
  /** Both outputs were marked. */
  marked: boolean;
}

/** How a process came to its end. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** How a task ended: with a reply, by the end of its process, or because it was stopped. */
export type Run = { stdout: string; stderr: string } & (
  | { how: "replied"; reply: Reply }
  | { how: "ended"; ending: Ending }
  | { how: "timeout" }
  | { how: "cancelled" }
  | { how: "garbled" }
);

export class PythonProcess {
  /** How many it was given. */
  tasks = 0;
  /** Resolves when it is gone; never rejects. */
  readonly ended: Promise<Ending>;
  readonly #child: ChildProcess;
  readonly #link: Socket;
  readonly #stdout: Printed;
  readonly #stderr: Printed;
  #isEnded = false;
  #reply: PromiseWithResolvers<Reply | "garbled"> = Promise.withResolvers();

  private constructor(options: ProcessOptions) {
    const { python, memoryMaxBytes, resultMaxBytes } = options;
    const limits = [String(memoryMaxBytes), String(resultMaxBytes)];
    this.#child = spawn(python, ["-B", "-X", "utf8", RUNNER, ...limits], {
      env: options.environment,
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      // A process group of its own: whatever its tasks begin ends with it.
      detached: true,
    });
    this.#stdout = new Printed(options.outputMaxBytes);
    this.#stderr = new Printed(options.outputMaxBytes);
    this.#stderr.begin("\0");
    this.#child.stdout?.on("data", (chunk: Buffer) => this.#stdout.write(chunk));
    this.#child.stderr?.on("data", (chunk: Buffer) => this.#stderr.write(chunk));
    this.#link = this.#child.stdio[3] as Socket;
    // A link that breaks is told by the end of the process.
    this.#link.on("error", () => undefined);
    this.#listen(new FrameReader(resultMaxBytes + REPLY_EXTRA_BYTES));
    this.ended = this.#end();
  }

  /** Starts one and waits until it takes tasks. What has gone wrong comes as a sentence. */
  static async start(options: ProcessOptions): Promise<PythonProcess | { problem: string }> {
    const one = new PythonProcess(options);
    const late = Promise.withResolvers<"late">();
    const timer = setTimeout(() => late.resolve("late"), READY_MS);
    const first = await Promise.race([one.#reply.promise, one.ended, late.promise]);
    clearTimeout(timer);
    if (typeof first === "object" && "ready" in first) return one;
    await one.kill();
    const said = one.#stderr.text().trim().slice(-400);
    const why = first === "late" ? `not ready in ${READY_MS / 1_000} s` : describeEnding(first);
    return { problem: `python did not start: ${why}${said === "" ? "" : `: ${said}`}` };
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Runs one task. When it is stopped, and when the process ends, there is no process any more. */
  async run(
    task: PythonTask,
    { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal | undefined },
  ): Promise<Run> {
    this.tasks += 1;
    const mark = `\0${randomBytes(12).toString("hex")}\n`;
    this.#stdout.begin(mark);
    this.#stderr.begin(mark);
    this.#reply = Promise.withResolvers();
    const stop = Promise.withResolvers<"timeout" | "cancelled">();
    const timer = setTimeout(() => stop.resolve("timeout"), timeoutMs);
    const cancel = () => stop.resolve("cancelled");
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted) cancel();
    for (const piece of frameOf({ ...task, mark })) this.#link.write(piece);
    const first = await Promise.race([this.#reply.promise, this.ended, stop.promise]);
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
    if (typeof first === "string") await this.kill();
    else if ("marked" in first && first.marked) await this.#readToMarks();
    const printed = { stdout: this.#stdout.text(), stderr: this.#stderr.text() };
    if (typeof first === "string") return { how: first, ...printed };
    if ("worn" in first) return { how: "replied", reply: first, ...printed };
    return { how: "ended", ending: first, ...printed };
  }

  /** Ends it and all that its tasks have begun; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#killGroup();
    await this.ended;
  }

  #listen(reader: FrameReader): void {
    this.#link.on("data", (chunk: Buffer) => {
      try {
        for (const text of reader.read(chunk)) {
          this.#reply.resolve(parseJson(text) as unknown as Reply);
        }
      } catch {
        // A task has written to the link: what comes after cannot be told apart.
        this.#reply.resolve("garbled");
      }
    });
  }

  async #end(): Promise<Ending> {
    const closed = Promise.withResolvers<void>();
    this.#child.once("close", () => closed.resolve());
    const ending = await new Promise<Ending>(resolve => {
      this.#child.once("error", () => resolve({ code: null, signal: null }));
      this.#child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    this.#isEnded = true;
    this.#killGroup();
    // What it has sent is still read; our own side is what keeps the link open.
    this.#link.end();
    await within(LAST_WORDS_MS, closed.promise);
    for (const stream of this.#child.stdio) stream?.destroy();
    return ending;
  }

  #killGroup(): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // There is nobody left in it.
    }
  }

  async #readToMarks(): Promise<void> {
    const marks = Promise.all([this.#stdout.marked, this.#stderr.marked]);
    await within(LAST_WORDS_MS, Promise.race([marks, this.ended]));
  }
}

/** `it ended with exit code 3`, `it was ended by SIGSEGV`. */
export function describeEnding(ending: unknown): string {
  const { code, signal } = ending as Partial<Ending>;
  if (signal) return `it was ended by ${signal}`;
  if (typeof code === "number") return `it ended with exit code ${code}`;
  return "it could not be run";
}

async function within(ms: number, what: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(() => late.resolve(), ms);
  await Promise.race([what, late.promise]);
  clearTimeout(timer);
}
