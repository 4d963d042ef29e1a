/** Frames between us and a runner: four bytes of length (big endian), then JSON. */
import { stringify } from "../../mixins/result-store/shared-parts.ts";
import type { Json } from "../../schemas/json.ts";

const HEAD_BYTES = 4;

/**
 * A request as the pieces of a frame. What it holds more than once is written once: the results of
 * a loop of pipelines would be several times as large.
 */
export function frameOf(value: object): [head: Buffer, body: Buffer] {
  const body = Buffer.from(stringify(value as Json));
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(body.length);
  return [head, body];
}

/** Puts frames together again, from whatever pieces they arrive in. */
export class FrameReader {
  readonly #bytesMax: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Of the frame that is arriving, with its head; known when the head is there. */
  #wanted = HEAD_BYTES;
  #hasHead = false;

  /** `bytesMax`: of one frame's body. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** The frames that this piece completes. Throws RangeError for one that is too large. */
  read(chunk: Buffer): string[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const frames: string[] = [];
    while (this.#bytes >= this.#wanted) {
      const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
      if (this.#hasHead) {
        frames.push(all.toString("utf8", HEAD_BYTES, this.#wanted));
        this.#keep(all.subarray(this.#wanted));
        continue;
      }
      const length = all.readUInt32BE();
      if (length > this.#bytesMax) throw new RangeError(`a frame of ${length} bytes`);
      this.#chunks = [all];
      this.#wanted = HEAD_BYTES + length;
      this.#hasHead = true;
    }
    return frames;
  }

  #keep(rest: Buffer): void {
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#bytes = rest.length;
    this.#wanted = HEAD_BYTES;
    this.#hasHead = false;
  }
}
