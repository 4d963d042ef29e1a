/**
 * The frozen collection of a loop: by value when it is small, in chunks behind one reference when
 * it is not, and as a bare count when its items are their own indexes. Nobody holds it whole.
 */
import type { ResultReference } from "../events.ts";
import { roughBytes, type Json } from "../json.ts";

/** Items of one chunk at most, and their bytes: what one look at an item costs. */
const CHUNK_ITEMS_MAX = 1_000;
const CHUNK_BYTES_MAX = 262_144;

export interface Chunk {
  first: number;
  items: Json[];
}

/** What a collection's reference leads to: where each of its chunks is. */
export interface ChunkIndex {
  size: number;
  chunks: { first: number; count: number; reference: ResultReference }[];
}

/** The items in order, in chunks. */
export function chunksOf(items: Json[]): Chunk[] {
  const chunks: Chunk[] = [];
  let open: Chunk = { first: 0, items: [] };
  let bytes = 0;
  for (const [index, item] of items.entries()) {
    const size = roughBytes(item);
    const isFull = open.items.length >= CHUNK_ITEMS_MAX || bytes + size > CHUNK_BYTES_MAX;
    if (isFull && open.items.length > 0) {
      chunks.push(open);
      open = { first: index, items: [] };
      bytes = 0;
    }
    open.items.push(item);
    bytes += size;
  }
  if (open.items.length > 0) chunks.push(open);
  return chunks;
}

/** The chunk that holds an index; undefined outside the collection. */
export function chunkAt(index: ChunkIndex, item: number): ChunkIndex["chunks"][number] | undefined {
  let low = 0;
  let high = index.chunks.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const chunk = index.chunks[middle] as ChunkIndex["chunks"][number];
    if (item < chunk.first) high = middle - 1;
    else if (item >= chunk.first + chunk.count) low = middle + 1;
    else return chunk;
  }
  return undefined;
}
