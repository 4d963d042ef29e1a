// Following a run: what is new since the caller's last look, or a wait until something is.
import { batched } from "../../mixins/batched.ts";
import { readFacts, readMarks, type ExecutionMark } from "../../mixins/postgres/tail.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import type { ExecutionsTail } from "../../schemas/requests.ts";
import { forReaders, rowOf, toView, unknownExecution, type ExecutionView } from "./read.ts";
import { isOver } from "./status.ts";

/** What other nodes write is looked for this often; what this process writes is heard at once. */
const LOOK_MS = 500;

export interface ExecutionTail {
  /**
   * Facts after `after`, in version order and without gaps, in the shape of `executions.events`.
   * Only what is recorded in the execution's own stream: no derived rows, so one fact a version,
   * and nothing of loops' streams (`loop_progress` of the view shows those).
   */
  events: Record<string, unknown>[];
  /** Of the last fact shown: `after` of the next call. */
  version: number;
  /** Mark of the view: `seen` of the next call, which then answers when the view has changed. */
  seen: string;
  /** As `executions.get` shows it, without its result. */
  execution: Omit<ExecutionView, "result">;
  /** The run is over and every fact has been shown. */
  ended: boolean;
}

/**
 * Answers at once when there are facts after `after`, when the view is another than `seen`, or when
 * all is over; else as soon as that is so, or at the timeout with no events. Returns early when
 * `stopping()`. Throws Rejected 404.
 */
export async function tailExecution(
  runtime: Runtime,
  request: ExecutionsTail,
  stopping: () => boolean,
): Promise<ExecutionTail> {
  const { execution_id, after, seen, timeout_ms } = request;
  const { clock } = runtime;
  const { news, markOf } = followersOf(runtime);
  const until = clock.now() + timeout_ms;
  for (;;) {
    // Before the look, so that what is written meanwhile is heard.
    const next = news.next(execution_id);
    try {
      const mark = await markOf(execution_id);
      if (!mark) throw unknownExecution(execution_id);
      const isNew = mark.version > after || mark.seen !== seen || isOver(mark.status);
      const left = until - clock.now();
      if (isNew || left <= 0 || stopping()) return await look(runtime, request, mark);
      // Everybody looks at the same moments, so that one statement serves all of a process.
      await next.within(Math.min(left, LOOK_MS - (clock.now() % LOOK_MS)));
    } finally {
      next.cancel();
    }
  }
}

/** The row is read before the facts, so what it says has happened is among them. */
async function look(
  runtime: Runtime,
  { execution_id, after, limit }: ExecutionsTail,
  { seen }: ExecutionMark,
): Promise<ExecutionTail> {
  const row = await rowOf(runtime, execution_id);
  const facts = await readFacts(runtime.database, { execution_id, after, limit });
  const { result: _result, ...execution } = toView(row, runtime.clock.now());
  return {
    events: facts.map(fact => forReaders(fact, row)),
    version: facts.at(-1)?.version ?? after,
    seen,
    execution,
    ended: isOver(execution.status) && facts.length < limit,
  };
}

interface Followers {
  news: News;
  /** The mark of an execution; looks of many followers go out together. */
  markOf(executionId: string): Promise<ExecutionMark | undefined>;
}

const followers = new WeakMap<Runtime, Followers>();

function followersOf(runtime: Runtime): Followers {
  let found = followers.get(runtime);
  if (!found) {
    const markOf = batched(async (ids: string[]) => {
      const marks = await readMarks(runtime.database, ids);
      return ids.map(id => marks.get(id));
    });
    found = { news: new News(runtime), markOf };
    followers.set(runtime, found);
  }
  return found;
}

/** Who waits for which execution. Commits and row writes of this process wake them: hints only. */
class News {
  readonly #clock: Runtime["clock"];
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor({ clock, feed, shown }: Runtime) {
    this.#clock = clock;
    feed.subscribe(events => {
      // Commits are frequent and followers few.
      if (this.#waiting.size === 0) return;
      for (const event of events) {
        if (event.stream_id === event.execution_id) this.#tell(event.execution_id);
      }
    });
    shown.subscribe(ids => {
      for (const id of this.#waiting.keys()) if (ids.has(id)) this.#tell(id);
    });
  }

  #tell(executionId: string): void {
    for (const heard of this.#waiting.get(executionId) ?? []) heard();
  }

  /** Listens from this moment on, until `cancel`. */
  next(executionId: string) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const others = this.#waiting.get(executionId) ?? new Set();
    this.#waiting.set(executionId, others.add(resolve));
    let stopTimer = () => {};
    return {
      /** Resolves at the first news, or after `ms`. */
      within: (ms: number): Promise<void> => {
        stopTimer = this.#clock.after(ms, resolve);
        return promise;
      },
      cancel: (): void => {
        stopTimer();
        others.delete(resolve);
        if (others.size === 0) this.#waiting.delete(executionId);
      },
    };
  }
}
