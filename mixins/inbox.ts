// Inputs that wait for the next turn of their stream, bounded in number and in bytes (design §5).
import { Busy } from "../schemas/errors.ts";
import type { Entry } from "./deciding.ts";
import { jsonBytes } from "./json-size.ts";
import type { StartRow } from "./postgres/event.ts";

const INPUTS_MAX = 1_000;
const BYTES_MAX = 1_048_576;
/** When a sender who found no room may come again. */
const RETRY_MS = 100;

export class Inbox<Input extends { type: string }, Answer> {
  readonly #streamId: string;
  #entries: Entry<Input, Answer>[] = [];
  #bytes = 0;

  constructor(streamId: string) {
    this.#streamId = streamId;
  }

  get size(): number {
    return this.#entries.length;
  }

  /**
   * Resolves or rejects as the input's turn says. Throws Busy when there is no room; one input
   * always has room, however large. Throws Rejected 422 for what is no JSON.
   */
  add(input: Input, start?: StartRow, forwarded = false): Promise<Answer> {
    const bytes = jsonBytes(input);
    const isOver = this.#bytes + bytes > BYTES_MAX && this.size > 0;
    if (isOver || this.size >= INPUTS_MAX) {
      const waiting = `${this.size} inputs of ${this.#bytes} bytes`;
      throw new Busy(
        `stream ${this.#streamId} has ${waiting} waiting: at most ${INPUTS_MAX} inputs and ` +
          `${BYTES_MAX} bytes may wait`,
        { retry_after_ms: RETRY_MS },
      );
    }
    return new Promise((resolve, reject) => {
      this.putBack({ input, start, bytes, forwarded, resolve, reject });
    });
  }

  /** An entry that is to be decided again. */
  putBack(entry: Entry<Input, Answer>): void {
    this.#entries.push(entry);
    this.#bytes += entry.bytes;
  }

  /**
   * Everything that waits. Wakes come before what came with them: they judge holders by rows that
   * are read for the committed state, in which a claim of this turn is not.
   */
  take(): Entry<Input, Answer>[] {
    const entries = this.#entries;
    this.#entries = [];
    this.#bytes = 0;
    if (!entries.some(isWake)) return entries;
    return [...entries.filter(isWake), ...entries.filter(entry => !isWake(entry))];
  }
}

export const isWake = (entry: { input: { type: string } }): boolean => entry.input.type === "wake";
