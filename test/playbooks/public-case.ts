// A public playbook: what it is given, and what can be looked at when it has ended.
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import type { MockApi } from "../support/mock-api.ts";

/** What can be looked at when a playbook has ended. */
export interface Ended {
  execution_id: string;
  error: Record<string, unknown> | null | undefined;
  /** Of the last step. */
  result: unknown;
  api: MockApi;
  /** Of the user's database. */
  target: string;
  /** Result of a step, whole. */
  of(step: string): Promise<Record<string, Json>>;
  /** One row of the user's database. */
  row(sql: string): Promise<Record<string, unknown>>;
  /** How often each step was entered. */
  entries(): Promise<Record<string, number>>;
  /** Bytes of the largest row of its log. */
  largestRow(): Promise<number>;
  /** Executions of this path whose parent it is. */
  children(path: string): Promise<number>;
}

export interface PublicCase {
  file: string;
  /** Told apart from another case of the same file. */
  as?: string;
  /** Playbooks that it starts, registered before. */
  starts?: string[];
  payload?: (api: MockApi) => object;
  /** SQL in the user's database before it starts. */
  prepare?: string;
  /** COMPLETED when absent. */
  status?: "COMPLETED" | "FAILED";
  /** In words, for the table. */
  expected: string;
  check?: (ended: Ended) => Promise<void> | void;
  /** Through the command line, in a folder with these files of the playbooks' own. */
  cli?: {
    files?: Record<string, string>;
    /** Its aliases name the runtime's own database, in which it looks at its frames. */
    ownStore?: true;
  };
  limitMs?: number;
}

export const withApi = (api: MockApi) => ({ api_url: api.url });

/** Rows of the log are control rows: what is large is elsewhere. */
const SMALL_ROW_BYTES = 8_192;

export async function smallRows(ended: Ended): Promise<void> {
  const bytes = await ended.largestRow();
  assert.ok(bytes < SMALL_ROW_BYTES, `a row of the log has ${bytes} bytes`);
}
