// Whether a worker can do its work: its pulls are answered. One that is full, or whose gate is
// closed, makes none, and is as ready as it was.
import { WORK_CLASSES, type WorkClass } from "../../schemas/work-class.ts";

export class Readiness {
  readonly #whys = new Map<WorkClass, string>();
  readonly #changed: (reason: string | undefined) => void;

  /** `changed` is told when the worker is not ready, and why, and when it is again. */
  constructor(changed: (reason: string | undefined) => void) {
    this.#changed = changed;
  }

  /** Why no work can come; undefined while it can. */
  get reason(): string | undefined {
    for (const workClass of WORK_CLASSES) {
      const why = this.#whys.get(workClass);
      if (why !== undefined) return why;
    }
    return undefined;
  }

  /** What became of a pull of this class: `why` it was not answered, or undefined. */
  pulled(workClass: WorkClass, why: string | undefined): void {
    const before = this.reason;
    if (why === undefined) this.#whys.delete(workClass);
    else this.#whys.set(workClass, why);
    if (this.reason !== before) this.#changed(this.reason);
  }
}
