// Brings a database up to this build's schema: numbered SQL files, each applied once.
import { readdir, readFile } from "node:fs/promises";
import { Rejected } from "../../schemas/errors.ts";
import type { Database, Query } from "./index.ts";

const FOLDER = new URL("./migrations/", import.meta.url);

/**
 * Applies what is missing, all in one transaction under an advisory lock, so that any number of
 * processes may start at once. Returns the names applied. Refuses a database that a newer build has
 * migrated.
 */
export async function migrate(database: Database): Promise<string[]> {
  const files = await migrationFiles();
  const applied = await appliedNames(database);
  if (files.every(file => applied.has(file))) {
    refuseNewer(applied, files);
    return [];
  }
  return database.transaction(async query => {
    await query.query("select pg_advisory_xact_lock(hashtext('noetl.migrate'))");
    await query.query("create schema if not exists noetl");
    await query.query(
      `create table if not exists noetl.migration (
         name text primary key, applied_at timestamptz not null default now())`,
    );
    const known = await appliedNames(query);
    refuseNewer(known, files);
    const missing = files.filter(file => !known.has(file));
    for (const file of missing) {
      await query.query(await readFile(new URL(file, FOLDER), "utf8"));
      await query.query("insert into noetl.migration (name) values ($1)", [file]);
    }
    return missing;
  });
}

/** What this build would apply, and what a newer one has applied. Reads only. */
export async function migrationState(
  query: Query,
): Promise<{ applied: number; missing: string[]; newer: string[] }> {
  const files = await migrationFiles();
  const applied = await appliedNames(query);
  return {
    applied: applied.size,
    missing: files.filter(file => !applied.has(file)),
    newer: newerNames(applied, files),
  };
}

async function migrationFiles(): Promise<string[]> {
  return (await readdir(FOLDER)).filter(name => name.endsWith(".sql")).sort();
}

async function appliedNames(query: Query): Promise<Set<string>> {
  const there = await query.query("select to_regclass('noetl.migration') is not null as there");
  if (!there.rows[0]?.["there"]) return new Set();
  const { rows } = await query.query<{ name: string }>("select name from noetl.migration");
  return new Set(rows.map(row => row.name));
}

function refuseNewer(applied: Set<string>, files: string[]): void {
  const newer = newerNames(applied, files);
  if (newer.length > 0) {
    throw new Rejected(
      `this database was migrated by a newer build (${newer.join(", ")}); use that or a later one`,
      409,
    );
  }
}

function newerNames(applied: Set<string>, files: string[]): string[] {
  const newest = files.at(-1) ?? "";
  return [...applied].filter(name => name > newest);
}
