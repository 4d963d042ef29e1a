/** A set of small integers as bits: what a loop remembers of its n iterations costs n/8 bytes. */

export class Bitmap {
  readonly bytes: Uint8Array;

  private constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** No bit set; room for indexes 0 … size-1. */
  static ofSize(size: number): Bitmap {
    return new Bitmap(new Uint8Array(Math.ceil(size / 8)));
  }

  static fromText(text: string): Bitmap {
    return new Bitmap(Uint8Array.from(Buffer.from(text, "base64")));
  }

  has(index: number): boolean {
    return ((this.bytes[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  add(index: number): void {
    const byte = index >> 3;
    if (byte < this.bytes.length)
      this.bytes[byte] = (this.bytes[byte] as number) | (1 << (index & 7));
  }

  /** The first index from `from` on that neither set has; the end of their room without one. */
  static firstFree(one: Bitmap, other: Bitmap, from: number): number {
    const end = one.bytes.length * 8;
    let index = from;
    while (index < end) {
      const place = index >> 3;
      const taken = (one.bytes[place] ?? 0) | (other.bytes[place] ?? 0);
      if (taken === 255) index = (place + 1) << 3;
      else if ((taken & (1 << (index & 7))) === 0) return index;
      else index += 1;
    }
    return end;
  }

  /** How many members it has. */
  count(): number {
    let members = 0;
    for (const byte of this.bytes) for (let rest = byte; rest > 0; rest &= rest - 1) members += 1;
    return members;
  }

  delete(index: number): void {
    const byte = index >> 3;
    if (byte < this.bytes.length)
      this.bytes[byte] = (this.bytes[byte] as number) & ~(1 << (index & 7));
  }

  /** Adds every member of another set of the same size. */
  join(other: Bitmap): void {
    for (let place = 0; place < this.bytes.length; place += 1) {
      this.bytes[place] = (this.bytes[place] ?? 0) | (other.bytes[place] ?? 0);
    }
  }

  copy(): Bitmap {
    return new Bitmap(this.bytes.slice());
  }

  toText(): string {
    return Buffer.from(this.bytes).toString("base64");
  }
}
