// The public playbooks that loop and that turn pages.
import { strict as assert } from "node:assert";
import type { Json } from "../../schemas/json.ts";
import { withApi, type PublicCase } from "./public-case.ts";

export const LOOPS: PublicCase[] = [
  {
    file: "loop_test.yaml",
    expected: "5 + 3 iterations, doubled_sum 30",
    async check({ of }) {
      const [numbers, users, verify] = await Promise.all(["start", "user_loop", "verify"].map(of));
      const doubled = numbers?.["results"] as Record<string, Json>[];
      assert.deepEqual(
        doubled.map(one => one["doubled"]),
        [2, 4, 6, 8, 10],
      );
      assert.deepEqual(
        doubled.map(one => one["index"]),
        [0, 1, 2, 3, 4],
      );
      assert.deepEqual(users?.["stats"], { total: 3, success: 3, failed: 0, not_run: 0 });
      assert.deepEqual([verify?.["doubled_sum"], verify?.["status"]], [30, "passed"]);
    },
  },
  {
    file: "root_scripts/test_simple_loop.yaml",
    expected: "every value doubled, in order",
    async check({ of }) {
      const results = (await of("loop_test"))["results"] as Record<string, number>[];
      assert.ok(results.length > 0);
      for (const { value, doubled } of results) assert.equal(doubled, 2 * value!);
    },
  },
  {
    file: "load_test/heavy_loop_aggregation/heavy_loop_aggregation.yaml",
    expected: "all_passed, 100 iterations",
    async check({ of, result }) {
      assert.equal((result as Record<string, Json>)["all_passed"], true);
      const { total, failed } = (await of("process_items"))["stats"] as Record<string, number>;
      assert.deepEqual({ total, failed }, { total: 100, failed: 0 });
    },
  },
  {
    file: "iterator_save_test.yaml",
    expected: "3 rows",
    async check({ row, execution_id }) {
      const sql = `select count(*)::integer as n, sum(item_value)::integer as sum
                   from iterator_save_test where execution_id = '${execution_id}'`;
      assert.deepEqual(await row(sql), { n: 3, sum: 600 });
    },
  },
  {
    file: "examples/weather_loop.yaml",
    payload: api => ({ weather_api_url: `${api.url}/v1/forecast` }),
    prepare: `create table if not exists weather_monitoring_summary (execution_id text,
      total_cities integer, alerts_triggered integer, summary_data jsonb, created_at timestamptz)`,
    expected: "3 cities, 3 alerts above 30 degrees",
    async check({ row }) {
      const sql = "select total_cities, alerts_triggered from weather_monitoring_summary";
      assert.deepEqual(await row(sql), { total_cities: 3, alerts_triggered: 3 });
    },
  },
  {
    file: "v10_canonical_example.yaml",
    payload: withApi,
    expected: "transformed, and stored item by item",
    async check({ of }) {
      const { total, failed } = (await of("store_results"))["stats"] as Record<string, number>;
      assert.ok(total! > 0 && failed === 0);
    },
  },
];

export const PAGINATION: PublicCase[] = [
  {
    file: "pagination/offset/test_pagination_offset.yaml",
    payload: withApi,
    expected: "4 fetches, 35 items",
    async check({ of, entries }) {
      const found = await of("validate_results");
      assert.deepEqual([found["status"], found["total_users"]], ["success", 35]);
      assert.equal((await entries())["fetch_page"], 4);
    },
  },
  {
    file: "pagination/cursor/test_pagination_cursor.yaml",
    payload: withApi,
    expected: "4 fetches, 35 items",
    async check({ of, api }) {
      const found = await of("validate_results");
      assert.deepEqual([found["status"], found["total_events"]], ["success", 35]);
      assert.equal(api.calls["GET /api/v1/events"], 4);
    },
  },
  {
    file: "pagination/retry/test_pagination_retry.yaml",
    payload: withApi,
    expected: "35 items, page 2 failed once and was retried",
    async check({ of, api }) {
      const found = await of("validate_results");
      assert.deepEqual([found["total_items"], found["retry_worked"]], [35, true]);
      assert.equal(api.calls["GET /api/v1/flaky"], 5);
      assert.equal(api.statuses[500], 1);
    },
  },
  {
    file: "pagination/fetch_load_test/test_fetch_load.yaml",
    payload: api => ({
      ...withApi(api),
      ...{ api_min_delay: 0, api_max_delay: 0.01, api_payload_kb: 2, api_rate_limit: 100_000 },
    }),
    expected: "500 completed, 0 failed",
    limitMs: 240_000,
    async check({ of }) {
      const found = await of("check_results");
      assert.deepEqual([found["completed"], found["failed_patients"]], [500, 0]);
    },
  },
  {
    file: "examples/http_pagination_v2.yaml",
    payload: withApi,
    expected: "all pages' items in one list",
    async check({ of }) {
      const found = await of("process_results");
      assert.equal(found["status"], "processed");
      assert.ok((found["count"] as number) > 0);
    },
  },
];
