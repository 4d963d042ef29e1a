// noetl.verify_execution: the database recomputes what an execution's log says of itself.
import { Unavailable } from "../../schemas/errors.ts";
import { codeOf, type Database } from "./index.ts";

/** One line of the answer: a rule that holds, or something that breaks it. */
export interface Finding {
  rule: string;
  /** `stream 12`, `command …`, `loop 12 of load, item 3`, `execution 7`. */
  subject: string;
  ok: boolean;
  detail: string;
}

/** The longest that one execution is verified, in milliseconds: some millions of items. */
export const VERIFY_MS_MAX = 120_000;
/** SQLSTATE of a statement that took longer than it may. */
const CANCELED = "57014";

/**
 * Verifies one execution on a connection of its own. Undefined when nothing is known of it. Throws
 * Unavailable when that takes longer than it may.
 */
export async function verifyExecution(
  database: Pick<Database, "aside">,
  executionId: string,
): Promise<Finding[] | undefined> {
  try {
    const { rows } = await database.aside<Finding & Record<string, unknown>>(
      "select rule, subject, ok, detail from noetl.verify_execution($1)",
      [executionId],
      VERIFY_MS_MAX,
    );
    return rows[0]?.rule === "known" ? undefined : rows;
  } catch (error) {
    if (codeOf(error) !== CANCELED) throw error;
    const seconds = VERIFY_MS_MAX / 1_000;
    throw new Unavailable(
      `verifying execution ${executionId} takes longer than ${seconds} seconds; ` +
        "select * from noetl.verify_execution(…) in SQL has no such limit",
    );
  }
}
