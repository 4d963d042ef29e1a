// The public pipeline test_pft_flow: what it is given, what it must leave, and its five minutes.
import { strict as assert } from "node:assert";
import { join } from "node:path";
import pg from "pg";
import { ask } from "./actors.ts";
import { PUBLIC } from "./public-playbooks.ts";

export const PFT = join(PUBLIC, "pft_flow_test/test_pft_flow.yaml");
export const PFT_PATH = "fixtures/playbooks/pft_flow_test/test_pft_flow";
/** The route that each batch is fetched from, once. */
export const BATCHES = "GET /api/v1/pft/batch/{type}";

/** One facility of a hundred patients. */
export function smokePayload(apiUrl: string) {
  return { api_url: apiUrl, num_facilities: 1, patients_per_facility: 100 };
}

/** What the smoke run must leave (EXPECTED.md). */
export const SMOKE = {
  assessments: 307,
  conditions: 207,
  medications: 251,
  vital_signs: 100,
  demographics: 100,
  mds_ids: 100,
  mds_details: 100,
  batches: 24,
  batches_done: 24,
  log_rows: 1,
  all_logged: 100,
};

/** What a run over all ten facilities must leave (EXPECTED.md). */
export const FULL = {
  assessments: 29_898,
  conditions: 19_907,
  medications: 25_024,
  vital_signs: 10_000,
  demographics: 10_000,
  mds_ids: 10_000,
  mds_details: 10_000,
  batches: 2_400,
  batches_done: 2_400,
  log_rows: 10,
  all_logged: 1_000,
};

/** The rows of a run, exactly. */
export async function assertPftRows(url: string, expected: typeof SMOKE): Promise<void> {
  const [rows] = await ask<Record<string, string>>(
    url,
    `select (select count(*) from pft_test_patient_assessments) as assessments,
            (select count(*) from pft_test_patient_conditions) as conditions,
            (select count(*) from pft_test_patient_medications) as medications,
            (select count(*) from pft_test_patient_vital_signs) as vital_signs,
            (select count(*) from pft_test_patient_demographics) as demographics,
            (select count(*) from pft_test_mds_assessment_ids_work) as mds_ids,
            (select count(*) from pft_test_mds_assessment_details) as mds_details,
            (select count(*) from pft_test_work_batch_queue) as batches,
            (select count(*) from pft_test_work_batch_queue where status = 'done') as batches_done,
            (select count(*) from pft_test_validation_log) as log_rows,
            (select min(least(assessments_done, conditions_done, medications_done,
               vital_signs_done, demographics_done, assessments_queue_done, mds_details_done))
             from pft_test_validation_log) as all_logged`,
  );
  const counts = Object.entries(rows ?? {}).map(([name, value]) => [name, Number(value)] as const);
  assert.deepEqual(Object.fromEntries(counts), expected);
}

/** Batches in one state; 0 before there are any. */
export async function countBatches(url: string, state: "pending" | "done"): Promise<number> {
  const [there] = await ask<{ there: boolean }>(
    url,
    "select to_regclass('pft_test_work_batch_queue') is not null as there",
  );
  if (!there?.there) return 0;
  const [row] = await ask<{ count: number }>(
    url,
    "select count(*)::integer as count from pft_test_work_batch_queue where status = $1",
    [state],
  );
  return row?.count ?? 0;
}

/**
 * The playbook marks a batch `claimed` in a table of its own, and takes it back only after five
 * minutes. This lets those minutes pass for everything claimed: by processes that are all dead.
 */
export async function fiveMinutesLater(url: string): Promise<void> {
  await ask(url, `${TAKE_BACK} where status = 'claimed'`);
}

const TAKE_BACK = `update pft_test_work_batch_queue
  set status = 'pending', claimed_at = null, worker_id = null`;

/** `batch_slots` counts from 1. */
function slotsOf(held: { iter_index: number | null }[]): string[] {
  return held.map(one => `action-batch:${(one.iter_index ?? NaN) + 1}`);
}

/** Batches that these commands have claimed and not ended. */
export async function batchesOf(
  url: string,
  held: { iter_index: number | null }[],
): Promise<number> {
  const text = `select count(*)::integer as n from pft_test_work_batch_queue
                where status = 'claimed' and worker_id = any ($1)`;
  const [row] = await ask<{ n: number }>(url, text, [slotsOf(held)]);
  return row?.n ?? 0;
}

/**
 * Lets them pass for what one worker holds, which `stop` ends. Nobody claims a batch meanwhile, or
 * whoever does the dead one's work again would find nothing to do before the minutes are over.
 * Gives how many batches were taken back.
 */
export async function fiveMinutesAfter(
  url: string,
  held: { iter_index: number | null }[],
  stop: () => Promise<void>,
): Promise<number> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query("begin");
    await client.query("lock table pft_test_work_batch_queue in exclusive mode");
    await stop();
    const mine = `${TAKE_BACK} where status = 'claimed' and worker_id = any ($1)`;
    const { rowCount } = await client.query(mine, [slotsOf(held)]);
    await client.query("commit");
    return rowCount ?? 0;
  } finally {
    await client.end();
  }
}
