/** The nearest valid word to a misspelt one, for hints. */

/** Longer words are not compared: a hint is not worth the time. */
const MAX_COMPARED_LETTERS = 80;

/**
 * The candidate that `word` was probably meant to be, or undefined when none is close: at most one
 * edit in three letters (insert, delete, replace, swap of neighbours), letter case ignored.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = word.trim().toLowerCase();
  if (wanted === "" || wanted.length > MAX_COMPARED_LETTERS) return undefined;
  let limit = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  let best: string | undefined;
  for (const candidate of candidates) {
    const other = candidate.toLowerCase();
    if (Math.abs(other.length - wanted.length) >= limit) continue;
    const edits = editDistance(wanted, other);
    if (edits >= limit) continue;
    limit = edits;
    best = candidate;
  }
  return best;
}

/** Optimal string alignment distance (Damerau 1964, restricted): swaps of neighbours count one. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let edits = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + same);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) edits = Math.min(edits, beforeLast[j - 2]! + 1);
      row.push(edits);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
