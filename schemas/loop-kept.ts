/** The running state of a loop or a fan-out as it is copied, and kept in a snapshot. */
import { Bitmap } from "./bitmap.ts";
import type { Command } from "./command.ts";
import type { Json, JsonObject } from "./json.ts";
import { digestText, parseDigest } from "./loop-digest.ts";

/** What of it can be changed in place, or is not JSON as it is. */
interface Open<One extends Command> {
  open: Map<string, One>;
  done: Bitmap;
  failed: Bitmap;
  /** Of what was accepted so far; undefined when an older build accepted some of it. */
  digest?: bigint;
}

/** Copies of what is changed in place; the commands themselves never are. */
export function copied<One extends Command>({ open, done, failed }: Open<One>) {
  return { open: new Map(open), done: done.copy(), failed: failed.copy() };
}

export function toKept(state: Open<Command>): JsonObject {
  const { open, done, failed, digest, ...rest } = state;
  return {
    ...(rest as JsonObject),
    open: [...open.values()] as unknown as Json,
    done: done.toText(),
    failed: failed.toText(),
    ...(digest !== undefined && { digest: digestText(digest) }),
  };
}

export function fromKept<One extends Command>(kept: Json): Open<One> {
  const raw = kept as unknown as { open: One[]; done: string; failed: string; digest?: string };
  return {
    open: new Map(raw.open.map(command => [command.command_id, command])),
    done: Bitmap.fromText(raw.done),
    failed: Bitmap.fromText(raw.failed),
    digest: parseDigest(raw.digest),
  };
}
