/** Databases of a server: making one beside our own. */
import { codeOf } from "./index.ts";
import type { Query } from "./index.ts";

const DUPLICATE_DATABASE = "42P04";

/** Creates the demo's own database unless it is there. Not inside a transaction. */
export async function createDemoDatabase(query: Query): Promise<void> {
  try {
    await query.query("create database noetl_demo");
  } catch (error) {
    if (codeOf(error) !== DUPLICATE_DATABASE) throw error;
  }
}
