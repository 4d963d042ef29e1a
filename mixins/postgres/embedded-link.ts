// What a keeper and its clients say to each other: one record file, and JSON lines over loopback.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Socket } from "node:net";

/** Written by the keeper when it is ready, removed before it stops. Readable by its owner only. */
export interface KeeperRecord {
  pid: number;
  keeper_port: number;
  postgres_port: number;
  /** Who can read the file may join. */
  token: string;
}

/** Client to keeper. The open connection is the client's presence; a kill closes it too. */
export type FromClient = { join: string } | { leave: true };

/** Keeper to client: after a join, and again when a restart had to take another port. */
export interface FromKeeper {
  url: string;
  port: number;
}

/** What a keeper prints once on stdout, for the client that started it. */
export type Announcement =
  { ready: true } | { taken: true } | { failed: { type: string; message: string; code: number } };

export function recordFile(root: string): string {
  return join(root, "keeper.json");
}

export async function readRecord(root: string): Promise<KeeperRecord | undefined> {
  try {
    return JSON.parse(await readFile(recordFile(root), "utf8")) as KeeperRecord;
  } catch {
    return undefined; // None, or an empty one after a power cut: as good as none.
  }
}

export function say(socket: Socket, message: FromClient | FromKeeper): void {
  socket.write(`${JSON.stringify(message)}\n`);
}

/** Calls `hear` for each line. What is no JSON ends the connection: it is none of ours. */
export function listen<T>(socket: Socket, hear: (message: T) => void): void {
  let rest = "";
  socket.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    if (rest.length > 4096) socket.destroy();
    for (const line of lines) {
      let message: T;
      try {
        message = JSON.parse(line) as T;
      } catch {
        socket.destroy();
        return;
      }
      hear(message);
    }
  });
}
