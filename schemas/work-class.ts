/**
 * Classes of commands: what a worker counts apart, and what waits apart, so that a full class never
 * holds the other one back.
 */

/** `database`: it uses a user's database for at least a part of its time. `general`: the others. */
export const WORK_CLASSES = ["general", "database"] as const;
export type WorkClass = (typeof WORK_CLASSES)[number];

/** Tool kinds that put load on a database (S-020). */
const DATABASE_KINDS: ReadonlySet<string> = new Set([
  "postgres",
  "transfer",
  "snowflake",
  "snowflake_transfer",
]);

/** The class of a command with this tool kind; of a pipeline, its heaviest task's. */
export function classOf(kind: string): WorkClass {
  return DATABASE_KINDS.has(kind) ? "database" : "general";
}
