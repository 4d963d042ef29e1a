/** Databases of a server: whether our own answers, and making one beside it. */
import { codeOf } from "./index.ts";
import type { Query } from "./index.ts";

const DUPLICATE_DATABASE = "42P04";

/** Resolves when the database answers. */
export async function ping(query: Query): Promise<void> {
  await query.query("select 1");
}

/** Creates the demo's own database unless it is there. Not inside a transaction. */
export async function createDemoDatabase(query: Query): Promise<void> {
  try {
    await query.query("create database noetl_demo");
  } catch (error) {
    if (codeOf(error) !== DUPLICATE_DATABASE) throw error;
  }
}
