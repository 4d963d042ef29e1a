// The tools of a world: what they are asked is remembered, and what they answer is the story's.
import type { ServiceSchema } from "moleculer";
import { toolAction } from "../../mixins/tool.ts";
import type { Json } from "../../schemas/json.ts";
import type { ToolCommand, ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Fate, Story, StoryStep } from "./stories.ts";

/** The rows of one user's table that a cursor loop claims. */
interface Queue {
  pending: number[];
  claimed: Map<number, number>;
  done: Set<number>;
}

/** A row that was claimed and is not done by then is claimed again. */
const STALE_MS = 20_000;
/** Milliseconds of work: from, up to. */
const QUICK_MS: [number, number] = [0.5, 8];
const SLOW_MS: [number, number] = [1_000, 8_000];
const LIMITS = { concurrency: 1_000, max_queue_size: 1_000 };

export class Tools {
  /** `command/delivery/place` of every run that ended, with how. */
  readonly runs = new Map<string, "ok" | "error">();
  readonly faults: string[] = [];
  /** Executions whose failing items have been mended: a redrive must do well. */
  readonly mended = new Set<string>();
  readonly #scheduler: Scheduler;
  /** What an execution plays. */
  readonly #storyOf: (executionId: string) => Story | undefined;
  readonly #slow = new Map<string, boolean>();
  readonly #queues = new Map<string, Queue>();

  readonly #slowShare: number;

  /** `slowShare` of all places take long. */
  constructor(
    scheduler: Scheduler,
    storyOf: (executionId: string) => Story | undefined,
    slowShare: number,
  ) {
    this.#scheduler = scheduler;
    this.#storyOf = storyOf;
    this.#slowShare = slowShare;
  }

  queues(): Iterable<[string, Queue]> {
    return this.#queues;
  }

  services(): ServiceSchema[] {
    return [
      {
        name: "tool.noop",
        actions: {
          run: toolAction({ tool: "noop", ...LIMITS }, (request, { signal }) =>
            this.#work(request, signal),
          ),
        },
      },
      {
        name: "tool.postgres",
        actions: {
          run: toolAction({ tool: "postgres", ...LIMITS }, (request, { signal }) =>
            this.#claim(request, signal),
          ),
          /** Nobody waits for a connection, so the gate of the class stays open. */
          stats: { handler: () => [] },
        },
      },
    ];
  }

  async #work({ input, command }: ToolRequest, signal?: AbortSignal): Promise<ToolEnvelope> {
    const step = this.#stepOf(command);
    const place = placeOf(command);
    await this.#take(this.#isSlow(command, place) ? SLOW_MS : QUICK_MS, signal);
    if (signal?.aborted) return cancelled();
    const mark = input["mark"];
    // A redrive enters it again, after what came later.
    const isKnown = step.mark !== undefined && command.activation === 1;
    if (isKnown && mark !== step.mark) {
      this.faults.push(`${command.command_id} sees ctx.mark ${String(mark)}, not ${step.mark}`);
    }
    const fate = this.#fateOf(step, place, command);
    const isAgain = command.attempt > 1 || attemptOf(command) > 1;
    const isOk = fate === "ok" || (fate === "flaky" && isAgain);
    if (isOk) this.#settleRow(command, place);
    this.runs.set(`${command.command_id}/${command.delivery}/${place}`, isOk ? "ok" : "error");
    return isOk ? ok({ place }) : broken(fate === "flaky");
  }

  /** The work at one place is slow for whoever does it. */
  #isSlow({ execution_id, step }: ToolCommand, place: string): boolean {
    const name = `${execution_id}/${step}/${place}`;
    let isSlow = this.#slow.get(name);
    if (isSlow === undefined) {
      isSlow = this.#scheduler.chance(this.#slowShare);
      this.#slow.set(name, isSlow);
    }
    return isSlow;
  }

  #fateOf(step: StoryStep, place: string, { execution_id }: ToolCommand): Fate {
    const fate = step.fates[step.kind === "cursor" ? 0 : Number(place)] ?? "ok";
    return fate === "fails" && this.mended.has(execution_id) ? "ok" : fate;
  }

  #stepOf({ execution_id, step }: ToolCommand): StoryStep {
    const found = this.#storyOf(execution_id)?.steps.find(one => one.name === step);
    if (!found) throw new Error(`no story has the step '${step}' of ${execution_id}`);
    return found;
  }

  async #claim({ config, command }: ToolRequest, signal?: AbortSignal): Promise<ToolEnvelope> {
    const [, size = "0", limit = "1"] =
      /claim ([0-9]+) limit ([0-9]+)/.exec(String(config["query"])) ?? [];
    await this.#take(QUICK_MS, signal);
    if (signal?.aborted) return cancelled();
    const queue = this.#queueOf(`${command.execution_id}:${command.step}`, Number(size));
    const now = this.#scheduler.now;
    const stale = [...queue.claimed].filter(([, at]) => at < now - STALE_MS).map(([row]) => row);
    const rows = [...queue.pending, ...stale].slice(0, Number(limit));
    queue.pending = queue.pending.filter(row => !rows.includes(row));
    for (const row of rows) queue.claimed.set(row, now);
    return ok({ rows: rows.map(id => ({ id })), columns: ["id"], row_count: rows.length });
  }

  #queueOf(name: string, size: number): Queue {
    let queue = this.#queues.get(name);
    if (!queue) {
      const pending = Array.from({ length: size }, (_, row) => row);
      queue = { pending, claimed: new Map(), done: new Set() };
      this.#queues.set(name, queue);
    }
    return queue;
  }

  /** A claimed row that went well is done in the user's table, too. */
  #settleRow({ execution_id, step }: ToolCommand, place: string): void {
    const queue = this.#queues.get(`${execution_id}:${step}`);
    if (!queue) return;
    const row = Number(place.split("=")[1]);
    queue.claimed.delete(row);
    queue.done.add(row);
  }

  #take(ms: [number, number], signal?: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const scheduler = this.#scheduler;
    scheduler.after(scheduler.between(...ms), "tool", resolve, scheduler.current);
    signal?.addEventListener("abort", () => resolve(), { once: true });
    return promise;
  }
}

/** `exec:step:activation[:place]:label:visit`. */
function placeOf({ idempotency_key }: ToolCommand): string {
  const parts = idempotency_key.split(":");
  return parts.length === 6 ? (parts[3] ?? "0") : "0";
}

/** Of its command: a shard is tried again as another one. */
const attemptOf = ({ command_id }: ToolCommand) => Number(command_id.split(":").at(-1));

const ok = (data: Json): ToolEnvelope => ({ status: "ok", data, error: null });

function cancelled(): ToolEnvelope {
  const error = { kind: "cancelled", retryable: false, code: "CANCELLED", message: "cancelled" };
  return { status: "error", data: null, error } as ToolEnvelope;
}

function broken(retryable: boolean): ToolEnvelope {
  const error = { kind: "server_error", retryable, code: "HTTP_503", message: "it broke" };
  return { status: "error", data: null, error } as ToolEnvelope;
}
