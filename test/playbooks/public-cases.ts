// What each public playbook is given, and what it must end with (EXPECTED.md): one entry each.
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import { assertPftRows, SMOKE, smokePayload } from "../support/pft.ts";
import { smallRows, withApi, type PublicCase } from "./public-case.ts";
import { LOOPS, PAGINATION } from "./public-loops.ts";

const SCORER = "playbook_composition/user_profile_scorer.yaml";
const WORKER = "batch_execution/heavy_payload_pipeline_chunk_worker";
const CHUNKS = "batch_execution/server_oom_stress_chunk_worker";

/** Of itself it does 3,000, one after the other: a minute and more of the same. */
const STRESS_ITEMS = Number(process.env["STRESS_ITEMS"] ?? 1_000);

const COMPOSITION: PublicCase[] = [
  {
    file: "playbook_composition/playbook_composition.yaml",
    starts: [SCORER],
    expected: "4 children, 4 rows with real scores and categories",
    async check({ of, row, children }) {
      const found = await of("validate_results");
      assert.deepEqual([found["all_valid"], found["valid_users"]], [true, 4]);
      const sql = `select count(*)::integer as n,
        bool_and(profile_score between 1 and 100) as scored,
        bool_and(score_category in ('Junior', 'Mid-Level', 'Senior', 'Executive')) as named
        from user_profile_results`;
      assert.deepEqual(await row(sql), { n: 4, scored: true, named: true });
      assert.equal(
        await children("fixtures/playbooks/playbook_composition/user_profile_scorer"),
        4,
      );
    },
  },
  { file: SCORER, expected: "COMPLETED" },
  {
    file: "control_flow_workbook/control_flow_workbook.yaml",
    as: "hot",
    cli: {},
    payload: () => ({ temperature_c: 30 }),
    expected: "hot_task_a and hot_task_b, end once",
    async check({ entries }) {
      assert.deepEqual(await entries(), {
        ...{ start: 1, eval_flag: 1, hot_path: 1, hot_task_a: 1, hot_task_b: 1, end: 1 },
      });
    },
  },
  {
    file: "control_flow_workbook/control_flow_workbook.yaml",
    as: "cold",
    payload: () => ({ temperature_c: 10 }),
    expected: "the cold path, end once",
    async check({ entries }) {
      assert.deepEqual(await entries(), {
        ...{ start: 1, eval_flag: 1, cold_path: 1, cold_task: 1, end: 1 },
      });
    },
  },
];

const CURSORS: PublicCase[] = [
  {
    file: "batch_execution/frame_heartbeat_regression/frame_heartbeat_regression.yaml",
    cli: { ownStore: true },
    payload: api => ({
      ...withApi(api),
      ...{ response_delay_seconds: 4, frame_lease_seconds: 3, frame_heartbeat_seconds: 1 },
    }),
    expected: "a frame that outlives its lease, by its heartbeats",
  },
];

const STRESS: PublicCase[] = [
  {
    file: "batch_execution/heavy_payload_pipeline_in_step/heavy_payload_pipeline_in_step.yaml",
    starts: [`${WORKER}/heavy_payload_pipeline_chunk_worker.yaml`],
    payload: api => ({ payload_kb_per_item: 4, details_api_url: `${api.url}/anything/item` }),
    expected: "240 rows, all http 200, none missing, 6 batches",
    limitMs: 240_000,
    async check({ of, row, children }) {
      const sql = `select count(*)::integer as n, max(batch_number) as batches,
        (count(*) filter (where http_status = 200))::integer as ok,
        (select count(*)::integer from heavy_payload_source s
         where not exists (select from heavy_payload_results r where r.item_id = s.item_id))
          as missing
        from heavy_payload_results`;
      assert.deepEqual(await row(sql), { n: 240, batches: 6, ok: 240, missing: 0 });
      assert.equal((await of("summarize"))["status"], "completed");
      assert.equal(await children(`fixtures/playbooks/${WORKER}`), 6);
    },
  },
  {
    file: "batch_execution/server_oom_stress_test/server_oom_stress_test.yaml",
    starts: [`${CHUNKS}/server_oom_stress_chunk_worker.yaml`],
    expected: `${STRESS_ITEMS / 50} children, ${STRESS_ITEMS} rows`,
    payload: () => ({ total_items: STRESS_ITEMS }),
    limitMs: 600_000,
    async check({ of, row, children }) {
      const found = await of("summarize");
      assert.deepEqual([found["is_complete"], found["processed_items"]], [true, STRESS_ITEMS]);
      const sql = "select count(distinct item_id)::integer as n from stress_test_results";
      assert.deepEqual(await row(sql), { n: STRESS_ITEMS });
      assert.equal(await children(`fixtures/playbooks/${CHUNKS}`), STRESS_ITEMS / 50);
    },
  },
  { file: "test_large_result_extraction.yaml", expected: "small rows", check: smallRows },
  {
    file: "test_large_tabular_result.yaml",
    expected: "columns are read, small rows",
    async check(ended) {
      const result = ended.result as Record<string, Json>;
      assert.equal(result["tabular_externalized"], true);
      await smallRows(ended);
    },
  },
  {
    file: "test_storage_tiers.yaml",
    expected: "500, 2000 and 5000 items are loaded again, small rows",
    limitMs: 120_000,
    async check(ended) {
      const { load_details } = ended.result as { load_details: Record<string, Json> };
      assert.deepEqual(load_details, {
        ...{ kv_loaded: true, kv_count: 500, disk_loaded: true, disk_count: 2_000 },
        ...{ large_loaded: true, large_count: 5_000 },
      });
      await smallRows(ended);
    },
  },
  {
    file: "test_oversize_command_context.yaml",
    expected: "900 KB beside the command, small rows",
    async check(ended) {
      assert.equal((ended.result as Record<string, Json>)["verified_size_kb"], 900);
      await smallRows(ended);
    },
  },
];

const PYTHON: PublicCase[] = [
  {
    file: "hello_world/hello_world.yaml",
    cli: {},
    expected: "Hello World",
    async check({ of }) {
      assert.deepEqual((await of("test_step"))["data"], { message: "Hello World" });
    },
  },
  { file: "simple_python.yaml", expected: "COMPLETED" },
  { file: "test_args_passing.yaml", expected: "its assertion of 300 holds" },
  { file: "test_start_with_action.yaml", expected: "COMPLETED" },
  { file: "test_end_with_action.yaml", expected: "COMPLETED" },
  { file: "root_scripts/test_implicit_end_routing.yaml", expected: "COMPLETED" },
  {
    file: "vars_test/test_transient.yaml",
    expected: "all_checks_passed",
    async check({ of }) {
      assert.equal((await of("verify_updates"))["all_checks_passed"], true);
    },
  },
  { file: "vars_test/test_vars_block.yaml", expected: "COMPLETED" },
  {
    file: "script_execution/python_file_example.yaml",
    cli: {
      files: {
        "fixtures/playbooks/script_execution/scripts/hello_world.py":
          "script_execution/scripts/hello_world.py",
      },
    },
    expected: "3 greetings of a script file",
    async check({ of }) {
      assert.equal((await of("run_python_from_file"))["total_greetings"], 3);
    },
  },
  {
    file: "http_test.yaml",
    payload: withApi,
    expected: "test_passed",
    check: ({ result }) => assert.equal((result as Record<string, Json>)["test_passed"], true),
  },
];

const POSTGRES: PublicCase[] = [
  {
    file: "data_transfer/http_to_postgres_direct/http_to_postgres_direct.yaml",
    payload: api => ({ api_url: `${api.url}/posts` }),
    expected: "100 rows",
    async check({ of }) {
      assert.equal((await of("validate_count"))["records"], 100);
    },
  },
  {
    file: "data_transfer/http_to_postgres_iterator/http_to_postgres_iterator.yaml",
    payload: api => ({ api_url: `${api.url}/posts` }),
    expected: "100 rows",
    async check({ row }) {
      const sql = "select count(distinct post_id)::integer as n from http_to_postgres_iterator";
      assert.deepEqual(await row(sql), { n: 100 });
    },
  },
  { file: "data_transfer/postgres_jsonb_test/postgres_jsonb_test.yaml", expected: "COMPLETED" },
  {
    file: "postgres_test.yaml",
    // Of NoETL's own schema it reads a column that ours has no use for.
    prepare: `create schema if not exists noetl;
      create table if not exists noetl.catalog as select 'Playbook' as kind`,
    expected: "COMPLETED",
  },
  {
    file: "broken_sql.yaml",
    status: "FAILED",
    expected: "FAILED, with the SQLSTATE",
    check: ({ error }) => assert.match(String(error?.["code"]), /^[0-9A-Z]{5}$/),
  },
  { file: "retry_test/postgres_retry_connection.yaml", expected: "COMPLETED, without a retry" },
  {
    file: "retry_test/retry_simple_config.yaml",
    payload: withApi,
    expected: "one retry in all",
    check: ({ api }) => assert.equal(api.calls["GET /api/v1/flaky"], 4),
  },
  {
    file: "pft_flow_test/test_pft_flow.yaml",
    payload: api => smokePayload(api.url),
    expected: "its rows, exactly (smoke)",
    check: ({ target }) => assertPftRows(target, SMOKE),
  },
];

export const CASES: readonly PublicCase[] = [
  ...LOOPS,
  ...PAGINATION,
  ...COMPOSITION,
  ...STRESS,
  ...CURSORS,
  ...PYTHON,
  ...POSTGRES,
];

/** Only ever started by another one of these. */
export const CHILDREN: readonly string[] = [
  `${WORKER}/heavy_payload_pipeline_chunk_worker.yaml`,
  `${CHUNKS}/server_oom_stress_chunk_worker.yaml`,
];

/** What this build lacks for the others, as registration says it. */
export const PENDING: Readonly<Record<string, RegExp>> = {
  "load_test/tooling_non_blocking/tooling_non_blocking.yaml": /duckdb|nats|snowflake/,
  "retry_test/duckdb_retry_query.yaml": /duckdb/,
  "test_nats_kv.yaml": /nats/,
};

/** Refused when it is registered, with what the message must say. */
export const BROKEN: Readonly<Record<string, RegExp>> = {
  "broken_playbooks/should_error_tool_is_required.yaml": /step 'end', tool: tool is required/,
};
