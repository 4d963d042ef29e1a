/**
 * A set of small integers as bits: what a loop remembers of its n iterations costs n/8 bytes. A
 * copy shares its pages until one of the two changes them, so a decision may work on a copy at any
 * n.
 */

const PAGE_BYTES = 1_024;
/** Bits of an index that name its place inside a page. */
const PAGE_SHIFT = 13;
const PLACE_MASK = (1 << PAGE_SHIFT) - 1;

export class Bitmap {
  readonly #size: number;
  /** Bytes of the set, page by page; a page that holds nothing yet is absent. */
  readonly #pages: (Uint8Array | undefined)[];
  /** Pages that no copy shares. */
  #own: Set<number>;

  private constructor(size: number, pages: (Uint8Array | undefined)[], own: Set<number>) {
    this.#size = size;
    this.#pages = pages;
    this.#own = own;
  }

  /** No bit set; room for indexes 0 … size-1. */
  static ofSize(size: number): Bitmap {
    const bytes = Math.ceil(size / 8);
    return new Bitmap(bytes, new Array(Math.ceil(bytes / PAGE_BYTES)), new Set());
  }

  static fromText(text: string): Bitmap {
    const bytes = Uint8Array.from(Buffer.from(text, "base64"));
    const set = Bitmap.ofSize(bytes.length * 8);
    for (let page = 0; page < set.#pages.length; page += 1) {
      const part = bytes.slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      if (part.some(byte => byte !== 0)) set.#ownPage(page).set(part);
    }
    return set;
  }

  has(index: number): boolean {
    return (this.#byte(index) & (1 << (index & 7))) !== 0;
  }

  add(index: number): void {
    if (index < 0 || index >> 3 >= this.#size) return;
    const page = this.#ownPage(index >> PAGE_SHIFT);
    const place = index & PLACE_MASK;
    page[place >> 3] = (page[place >> 3] as number) | (1 << (place & 7));
  }

  /** A page that may be changed. */
  #ownPage(index: number): Uint8Array {
    const page = this.#pages[index];
    if (page && this.#own.has(index)) return page;
    const fresh = page ? page.slice() : new Uint8Array(Math.min(PAGE_BYTES, this.#size));
    this.#pages[index] = fresh;
    this.#own.add(index);
    return fresh;
  }

  /** The first index from `from` on that neither set has; the end of their room without one. */
  static firstFree(one: Bitmap, other: Bitmap, from: number): number {
    const end = one.#size * 8;
    let index = from;
    while (index < end) {
      const taken = one.#byte(index) | other.#byte(index);
      if (taken === 255) index = ((index >> 3) + 1) << 3;
      else if ((taken & (1 << (index & 7))) === 0) return index;
      else index += 1;
    }
    return end;
  }

  /** The byte in which an index has its bit. */
  #byte(index: number): number {
    return this.#pages[index >> PAGE_SHIFT]?.[(index & PLACE_MASK) >> 3] ?? 0;
  }

  /** How many members it has. */
  count(): number {
    let members = 0;
    for (const page of this.#pages) {
      for (const byte of page ?? []) for (let rest = byte; rest > 0; rest &= rest - 1) members += 1;
    }
    return members;
  }

  delete(index: number): void {
    if (!this.has(index)) return;
    const page = this.#ownPage(index >> PAGE_SHIFT);
    const place = index & PLACE_MASK;
    page[place >> 3] = (page[place >> 3] as number) & ~(1 << (place & 7));
  }

  /** Adds every member of another set of the same size. */
  join(other: Bitmap): void {
    for (const [index, theirs] of other.#pages.entries()) {
      if (!theirs) continue;
      const page = this.#ownPage(index);
      for (const [at, byte] of theirs.entries()) page[at] = (page[at] ?? 0) | byte;
    }
  }

  copy(): Bitmap {
    // From here on the pages are of both.
    this.#own = new Set();
    return new Bitmap(this.#size, this.#pages.slice(), new Set());
  }

  toText(): string {
    const bytes = Buffer.alloc(this.#size);
    for (const [index, page] of this.#pages.entries()) {
      if (page) bytes.set(page.subarray(0, this.#size - index * PAGE_BYTES), index * PAGE_BYTES);
    }
    return bytes.toString("base64");
  }
}
