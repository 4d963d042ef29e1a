// Rings that name one worker lie in lanes of its own. It waits at the lane of the pool alone, or of
// two pulls that wait each could bring one, and there may be room for one: a word past the stream,
// sent when a ring is kept there, tells it to look into its own. Lost, it costs a broadcast.
import type { Msg, NatsConnection } from "nats";
import type { Settings } from "../schemas/env.ts";
import { WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";
import { knockSubject } from "./jetstream-config.ts";

/** What a knock says; whatever it costs to believe a wrong one is a look. */
const WORDS: ReadonlyMap<string, Knock> = new Map(
  WORK_CLASSES.flatMap(workClass =>
    [false, true].map(isUrgent => {
      const knock = { workClass, isUrgent };
      return [wordOf(knock), knock] as const;
    }),
  ),
);

interface Knock {
  workClass: WorkClass;
  /** A step, which goes before the items of loops. */
  isUrgent: boolean;
}

function wordOf({ workClass, isUrgent }: Knock): string {
  return isUrgent ? `${workClass} urgent` : workClass;
}

/** Knocks at workers' doors, once for all that is kept for one in a turn of the event loop. */
export class Knocker {
  readonly #settings: Settings;
  readonly #words = new Map<string, Set<string>>();

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  knock(connection: NatsConnection, workerId: string, knock: Knock): void {
    const words = this.#words.get(workerId) ?? new Set();
    words.add(wordOf(knock));
    this.#words.set(workerId, words);
    if (this.#words.size === 1 && words.size === 1) setImmediate(() => this.#say(connection));
  }

  #say(connection: NatsConnection): void {
    const all = [...this.#words];
    this.#words.clear();
    if (connection.isClosed()) return;
    for (const [workerId, words] of all) {
      for (const word of words) connection.publish(knockSubject(this.#settings, workerId), word);
    }
  }
}

/** What one worker knows of its own lanes. */
export class OwnLanes {
  readonly workerId: string;
  readonly #settings: Settings;
  /** At first what was kept before is unknown. */
  readonly #filled = new Set<WorkClass>(WORK_CLASSES);
  readonly #urgent = new Set<WorkClass>();
  readonly #waiting = new Map<WorkClass, AbortController>();

  constructor(settings: Settings, workerId: string) {
    this.#settings = settings;
    this.workerId = workerId;
  }

  /** Reconnecting subscribes again by itself. */
  hear(connection: NatsConnection): void {
    const callback = (error: unknown, message: Msg) => {
      // Who may not listen is told so here, with a message that is none.
      const knock = error ? undefined : WORDS.get(message.string());
      if (knock) this.fill(knock);
    };
    connection.subscribe(knockSubject(this.#settings, this.workerId), { callback });
  }

  /** Something may be there. */
  fill({ workClass, isUrgent }: Knock): void {
    this.#filled.add(workClass);
    if (isUrgent) this.#urgent.add(workClass);
    this.#waiting.get(workClass)?.abort();
  }

  isUrgent(workClass: WorkClass): boolean {
    return this.#urgent.has(workClass);
  }

  /** Whether something may be there; whoever asks looks, and what comes meanwhile counts anew. */
  open(workClass: WorkClass): Knock | undefined {
    if (!this.#filled.delete(workClass)) return undefined;
    return { workClass, isUrgent: this.#urgent.delete(workClass) };
  }

  /** Aborts when something may be there. */
  next(workClass: WorkClass): AbortSignal {
    const controller = new AbortController();
    if (this.#filled.has(workClass)) controller.abort();
    else this.#waiting.set(workClass, controller);
    return controller.signal;
  }
}
