/** Sets of small integers as text: `0-4,7,9-12`, ascending. What a frame says about its items. */

/** The text of ascending, distinct integers. */
export function toRanges(ascending: Iterable<number>): string {
  const parts: string[] = [];
  let first = -1;
  let last = -2;
  const close = () => {
    if (first >= 0) parts.push(first === last ? String(first) : `${first}-${last}`);
  };
  for (const value of ascending) {
    if (value !== last + 1) {
      close();
      first = value;
    }
    last = value;
  }
  close();
  return parts.join(",");
}

/** The integers of a text, ascending; undefined when it is not such a text within the bounds. */
export function fromRanges(text: string, from: number, to: number): number[] | undefined {
  if (text === "") return [];
  const values: number[] = [];
  let next = from;
  for (const part of text.split(",")) {
    const match = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(part);
    if (!match) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? first);
    if (first < next || last < first || last >= to) return undefined;
    for (let value = first; value <= last; value += 1) values.push(value);
    next = last + 1;
  }
  return values;
}

/** How many integers a text names, without listing them. */
export function countOf(text: string): number {
  if (text === "") return 0;
  let count = 0;
  for (const part of text.split(",")) {
    const [first, last] = part.split("-").map(Number) as [number, number | undefined];
    count += (last ?? first) - first + 1;
  }
  return count;
}
