/** What one task prints on one of its outputs: its beginning and its end, within a bound. */

/** Told apart from anything that a task prints by a random part. */
export class Printed {
  readonly #bytesMax: number;
  #mark: Buffer = Buffer.alloc(0);
  #head: Buffer[] = [];
  #tail: Buffer[] = [];
  #headBytes = 0;
  #tailBytes = 0;
  /** Bytes between head and tail that are kept no longer. */
  #lost = 0;
  /** What may be the beginning of the mark. */
  #held: Buffer = Buffer.alloc(0);
  #marked = Promise.withResolvers<void>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** A new task: what came before is forgotten, and `mark` will be its end. */
  begin(mark: string): void {
    this.#mark = Buffer.from(mark);
    this.#head = [];
    this.#tail = [];
    this.#headBytes = 0;
    this.#tailBytes = 0;
    this.#lost = 0;
    this.#held = Buffer.alloc(0);
    this.#marked = Promise.withResolvers();
  }

  /** Resolves when the mark has been read: the task has printed all. */
  get marked(): Promise<void> {
    return this.#marked.promise;
  }

  write(chunk: Buffer): void {
    if (this.#mark.length === 0) return;
    const bytes = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : chunk;
    const at = bytes.indexOf(this.#mark);
    if (at >= 0) {
      this.#keep(bytes.subarray(0, at));
      this.#held = Buffer.alloc(0);
      this.#mark = Buffer.alloc(0);
      this.#marked.resolve();
      return;
    }
    const sure = Math.max(0, bytes.length - this.#mark.length + 1);
    this.#keep(bytes.subarray(0, sure));
    this.#held = Buffer.from(bytes.subarray(sure));
  }

  /** All of it, or its two ends with what is missing between them said. */
  text(): string {
    const rest = [...this.#tail, this.#held];
    if (this.#lost === 0) return Buffer.concat([...this.#head, ...rest]).toString("utf8");
    const head = Buffer.concat(this.#head).toString("utf8");
    return `${head}\n… ${this.#lost} bytes left out …\n${Buffer.concat(rest).toString("utf8")}`;
  }

  /** Half of the bound is for the head; of the other half the last bytes stay. */
  #keep(bytes: Buffer): void {
    const half = Math.ceil(this.#bytesMax / 2);
    const first = bytes.subarray(0, Math.max(0, half - this.#headBytes));
    if (first.length > 0) {
      this.#head.push(Buffer.from(first));
      this.#headBytes += first.length;
    }
    const rest = bytes.subarray(first.length);
    if (rest.length === 0) return;
    this.#tail.push(Buffer.from(rest.subarray(-half)));
    this.#lost += Math.max(0, rest.length - half);
    this.#tailBytes += Math.min(rest.length, half);
    while (this.#tailBytes > half) {
      const [oldest = Buffer.alloc(0)] = this.#tail;
      const extra = Math.min(oldest.length, this.#tailBytes - half);
      if (extra === oldest.length) this.#tail.shift();
      else this.#tail[0] = oldest.subarray(extra);
      this.#tailBytes -= extra;
      this.#lost += extra;
    }
  }
}
