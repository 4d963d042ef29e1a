// Whether the pulls of a process are answered: that, and not a connection, is what a worker lives
// by. A consumer may be gone, or nobody may be there who answers for it.
import type { JetStreamManager } from "nats";
import type { Settings } from "../schemas/env.ts";
import { WORK_CLASSES, type WorkClass } from "../schemas/work-class.ts";
import { laneOf } from "./jetstream-config.ts";
import type { LaneCounts } from "./notifications.ts";

export class PullAnswers {
  /** By consumer, why its last pull was not answered. */
  readonly #whys = new Map<string, string>();
  /** Why there is no connection, or what has vanished cannot be made again. */
  #cause: string | undefined;
  /** What NATS has refused to let us publish. */
  readonly #refused = new Set<string>();

  /** Why the last pull from a consumer was not answered; undefined when it was. */
  why(consumer: string): string | undefined {
    return this.#whys.get(consumer);
  }

  answered(consumer: string): void {
    this.#whys.delete(consumer);
    this.#refused.clear();
    this.#cause = undefined;
  }

  /** Says whether that is new. */
  failed(consumer: string, error: unknown): boolean {
    const what = messageOf(error);
    const cause = this.#cause ?? this.#refusal(consumer);
    const why = cause === undefined ? what : `${what} (${cause})`;
    const isNew = why !== this.#whys.get(consumer);
    this.#whys.set(consumer, why);
    return isNew;
  }

  /** NATS says so beside the pull, which itself gets no answer. */
  refused(subject: string): void {
    this.#refused.add(subject);
  }

  #refusal(consumer: string): string | undefined {
    const subject = [...this.#refused].find(one => one.endsWith(`.${consumer}`));
    return subject && `NATS lets this user not publish to ${subject}`;
  }

  /** What is behind failures from now on; undefined: nothing is known. Says whether it is new. */
  because(error: unknown): boolean {
    const cause = error === undefined ? undefined : messageOf(error);
    const isNew = cause !== this.#cause;
    this.#cause = cause;
    return isNew;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What waits in each class, as its consumer counts it; one that has vanished is left out. */
export async function countLanes(
  manager: JetStreamManager,
  settings: Settings,
): Promise<LaneCounts[]> {
  const counted = await Promise.allSettled(
    WORK_CLASSES.map(workClass => countLane(manager, settings, workClass)),
  );
  return counted.flatMap(one => (one.status === "fulfilled" ? [one.value] : []));
}

async function countLane(
  manager: JetStreamManager,
  settings: Settings,
  work_class: WorkClass,
): Promise<LaneCounts> {
  const { consumer } = laneOf(settings, work_class);
  const info = await manager.consumers.info(settings.nats.stream, consumer);
  const { num_pending: pending, num_ack_pending: ack_pending, num_redelivered: redelivered } = info;
  return { work_class, consumer, pending, ack_pending, redelivered };
}
