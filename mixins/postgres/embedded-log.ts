// A log file with a limit: what Postgres says, kept in the data folder and never larger than that.
import { appendFileSync, renameSync, statSync } from "node:fs";

/** Two files of this size at most: the current one and the one before. */
const MAX_BYTES = 4 << 20;
const TAIL_LINES = 12;

/** Appends text to a file, starts it anew at 4 MB (keeping one older file), remembers the tail. */
export class BoundedLog {
  readonly file: string;
  #bytes: number;
  #tail: string[] = [];

  constructor(file: string) {
    this.file = file;
    this.#bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  }

  write(text: string): void {
    this.#tail = [...this.#tail, ...text.split("\n").filter(Boolean)].slice(-TAIL_LINES);
    try {
      if (this.#bytes > MAX_BYTES) {
        renameSync(this.file, `${this.file}.1`);
        this.#bytes = 0;
      }
      appendFileSync(this.file, text, { mode: 0o600 });
      this.#bytes += Buffer.byteLength(text);
    } catch {
      // A full disk or a removed folder must not take the database down with it: the tail remains.
    }
  }

  /** The last lines, for an error message. */
  tail(): string {
    return this.#tail.join("\n");
  }

  /** Forgets the tail, so that a later error does not quote an earlier start. */
  forget(): void {
    this.#tail = [];
  }
}
