// The public playbooks that lie beside this project, where they do; and the facts of test_pft_flow.
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ask } from "./actors.ts";
import type { Env } from "./process.ts";
import { ROOT } from "./source-files.ts";

export const PUBLIC = join(ROOT, "../shared/playbooks");
export const PFT = join(PUBLIC, "pft_flow_test/test_pft_flow.yaml");
export const PFT_PATH = "fixtures/playbooks/pft_flow_test/test_pft_flow";

/** Where they are absent: skips this test, or in a suite says so in place of its tests. */
export function arePublicPlaybooksHere(test?: Mocha.Context): boolean {
  if (existsSync(PUBLIC)) return true;
  if (test) test.skip();
  it.skip(`the public playbooks are not here: ${PUBLIC} is absent`);
  return false;
}

/** The aliases that public playbooks use, all naming this database. */
export function credentialsFor(url: string): Env {
  const { hostname, port, username, password, pathname } = new URL(url);
  const data = {
    db_host: hostname,
    db_port: Number(port),
    db_user: username,
    db_password: decodeURIComponent(password),
    db_name: pathname.slice(1),
  };
  const text = JSON.stringify({ type: "postgres", data });
  const aliases = ["PG_K8S", "PG_LOCAL", "PG_TEST", "PG_NOETL_K8S"];
  return Object.fromEntries(aliases.map(alias => [`NOETL_CREDENTIAL_${alias}`, text]));
}

/** One facility of a hundred patients. */
export function smokePayload(apiUrl: string) {
  return { api_url: apiUrl, num_facilities: 1, patients_per_facility: 100 };
}

/** What the smoke run must leave (EXPECTED.md). */
const SMOKE = {
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

/** The rows of the smoke run, exactly. */
export async function assertSmokeRows(url: string): Promise<void> {
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
  assert.deepEqual(Object.fromEntries(counts), SMOKE);
}

/** Batches that are done; 0 before there are any. */
export async function batchesDone(url: string): Promise<number> {
  const [there] = await ask<{ there: boolean }>(
    url,
    "select to_regclass('pft_test_work_batch_queue') is not null as there",
  );
  if (!there?.there) return 0;
  const [row] = await ask<{ count: string }>(
    url,
    "select count(*) from pft_test_work_batch_queue where status = 'done'",
  );
  return Number(row?.count);
}

/**
 * The playbook marks a batch `claimed` in a table of its own and takes one back only after five
 * minutes. This lets those minutes pass for the batches of a process that is dead.
 */
export async function fiveMinutesLater(url: string): Promise<void> {
  await ask(
    url,
    `update pft_test_work_batch_queue set status = 'pending', claimed_at = null, worker_id = null
     where status = 'claimed'`,
  );
}

/** The embedded Postgres of a data folder, while it runs. */
export async function embeddedUrl(folder: string): Promise<string> {
  const read = async (name: string) => (await readFile(join(folder, name), "utf8")).trim();
  const [port, password] = await Promise.all([read("postgres.port"), read("postgres.password")]);
  return `postgres://postgres:${password}@127.0.0.1:${port}/noetl`;
}
