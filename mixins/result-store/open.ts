// Which tier a process writes to; it reads from every one that a reference may name.
import { join, resolve } from "node:path";
import { databaseUrl, type Settings } from "../../schemas/env.ts";
import type { Query } from "../postgres/index.ts";
import { createDatabaseTier } from "./database.ts";
import { createResultStore, type ResultStore } from "./index.ts";
import { createLocalVolume } from "./local-volume.ts";

/** Beside the embedded database a folder is quickest; parts on many machines share a database. */
export function openResultStore(settings: Settings, database: Query): ResultStore {
  const local = createLocalVolume(join(resolve(settings.node.dataDir), "results"));
  const shared = createDatabaseTier(database);
  return writesToFolder(settings)
    ? createResultStore(local, [shared])
    : createResultStore(shared, [local]);
}

/** Whether large results go to the data folder; else they go to the database. */
export function writesToFolder(settings: Settings): boolean {
  const { storeTier } = settings.node;
  return storeTier === "auto" ? databaseUrl(settings) === undefined : storeTier === "local";
}
