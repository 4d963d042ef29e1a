// The mock API keeps the contract of the one that public playbooks were written against.
import { strict as assert } from "node:assert";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { mdsIdsOf, PAGED_TYPES, pagesOf } from "../support/mock-api-records.ts";

interface Answer<T> {
  status: number;
  headers: Headers;
  body: T;
}

interface Batch {
  rowCount: number;
  rows: {
    patient_id: number;
    facility_mapping_id: number;
    page_number: number;
    is_last_page: boolean;
    payload: { data: { mdsCount: number }[]; paging: object };
  }[];
}

interface Page {
  data: unknown[];
  paging: { nextPage?: number | null };
}

interface Bundle {
  entry: unknown[];
  link: unknown[];
  meta: { totalPages: number };
}

interface Echo {
  args: unknown;
  data: string;
  json: unknown;
  method: string;
  headers: Record<string, string>;
}

describe("mock API", () => {
  let api: MockApi;
  before(async () => {
    api = await startMockApi({ rate_limit: 50 });
  });
  after(() => api.close());

  async function ask<T = unknown>(path: string, init?: RequestInit): Promise<Answer<T>> {
    const reply = await fetch(`${api.url}${path}`, init);
    const body = (await reply.json()) as T;
    return { status: reply.status, headers: reply.headers, body };
  }

  async function get<T>(path: string): Promise<T> {
    const { status, body } = await ask<T>(path);
    assert.equal(status, 200, `${path}: ${JSON.stringify(body)}`);
    return body;
  }

  async function batchRows(type: string, from: number, to: number): Promise<number> {
    let rows = 0;
    for (let first = from; first <= to; first += 500) {
      const last = Math.min(to, first + 499);
      const ids = Array.from({ length: last - first + 1 }, (_, at) => first + at).join(",");
      const batch = await get<Batch>(`/api/v1/pft/batch/${type}?patientIds=${ids}&pageSize=1`);
      rows += batch.rowCount;
    }
    return rows;
  }

  it("has the pages that test_pft_flow counts on, for 100 patients and for 10,000", async () => {
    const expected: Record<string, [number, number]> = {
      assessments: [307, 29_898],
      conditions: [207, 19_907],
      medications: [251, 25_024],
      vital_signs: [100, 10_000],
    };
    for (const type of PAGED_TYPES) {
      const smoke = await batchRows(type, 1, 100);
      let full = 0;
      for (let id = 1; id <= 10_000; id++) full += pagesOf(id, type);
      assert.deepEqual([smoke, full], expected[type], type);
    }
    assert.equal(await batchRows("demographics", 1, 100), 100);
    assert.equal(await batchRows("mds", 1, 100), 100);
  });

  it("batches carry facility, page, payload and the last-page mark", async () => {
    const path = "/api/v1/pft/batch/assessments?patientIds=1,1001&pageSize=10";
    const { rows } = await get<Batch>(path);
    const ofFirst = rows.filter(row => row.patient_id === 1);
    assert.deepEqual(rows.at(-1)?.facility_mapping_id, 2);
    assert.deepEqual(
      ofFirst.map(row => row.is_last_page),
      ofFirst.map((_, at) => at === ofFirst.length - 1),
    );
    const { data, paging } = rows[0]!.payload;
    assert.equal(data.length, 10);
    const total = ofFirst.length * 10;
    assert.deepEqual(paging, { hasMore: ofFirst.length > 1, page: 1, pageSize: 10, total });
    const tooMany = Array.from({ length: 501 }, (_, at) => at + 1).join(",");
    assert.equal((await ask(`/api/v1/pft/batch/mds?patientIds=${tooMany}`)).status, 400);
    assert.equal((await ask("/api/v1/pft/batch/nonsense?patientIds=1")).status, 400);
  });

  it("single-patient pages end with 404 and agree with the batches", async () => {
    const pages = pagesOf("7", "conditions");
    const last = await get<Page>(`/api/v1/patient/conditions?patientId=7&page=${pages}`);
    assert.deepEqual(last.paging, { hasMore: false, page: pages, pageSize: 1, total: pages });
    const beyond = await ask(`/api/v1/patient/conditions?patientId=7&page=${pages + 1}`);
    assert.deepEqual([beyond.status, beyond.body], [404, { error: "page not found" }]);
    const person = await get<{ dob: string }>("/api/v1/patient/demographics?patientId=7");
    assert.match(person.dob, /^19\d\d-\d\d-\d\d$/);
  });

  it("mds ids lead to details, 756 for 100 patients as test_pft_flow_v2 counts", async () => {
    const ids = await get<{ assessmentIds: string[] }>("/api/v1/mds/assessment_ids?patientId=3");
    assert.deepEqual(ids.assessmentIds, mdsIdsOf("3"));
    const detail = await get<{ sections: unknown[] }>(
      `/api/v1/mds/assessment/${ids.assessmentIds[0]}`,
    );
    assert.equal(detail.sections.length, 3);
    assert.equal((await ask("/api/v1/pft/mds/details?assessmentId=a,b")).status, 400);
    let details = 0;
    for (let id = 1; id <= 100; id++) {
      const path = `/api/v1/pft/batch/assessments?patientIds=${id}&pageSize=1`;
      const { rows } = await get<Batch>(path);
      details += rows.find(row => row.page_number === 1)!.payload.data[0]!.mdsCount;
    }
    assert.equal(details, 756);
  });

  it("pages 35 items by page, by offset and by cursor", async () => {
    const byPage = await get<Page>("/api/v1/assessments?page=4&pageSize=10");
    assert.equal(byPage.data.length, 5);
    assert.deepEqual(byPage.paging, { hasMore: false, page: 4, pageSize: 10, total: 35 });
    const byOffset = await get<{ users: unknown[]; has_more: boolean }>(
      "/api/v1/users?offset=30&limit=10",
    );
    assert.deepEqual([byOffset.users.length, byOffset.has_more], [5, false]);
    let cursor: string | null = "";
    const seen: unknown[] = [];
    while (cursor !== null) {
      const page: { events: unknown[]; next_cursor: string | null } = await get(
        `/api/v1/events?cursor=${cursor}`,
      );
      seen.push(...page.events);
      cursor = page.next_cursor;
    }
    assert.equal(seen.length, 35);
  });

  it("a flaky page fails once, until the counters are reset", async () => {
    const page = "/api/v1/flaky?page=2&fail_on=2,3";
    const statuses = [(await ask(page)).status, (await ask(page)).status];
    await ask("/api/v1/flaky/reset", { method: "POST" });
    statuses.push((await ask(page)).status, (await ask("/api/v1/flaky?page=1&fail_on=2")).status);
    assert.deepEqual(statuses, [500, 200, 500, 200]);
  });

  it("chains of references hold 382 records on 16 pages of 25", async () => {
    const { data, paging, refs } = await get<Page & { refs: { chain: string[] } }>(
      "/api/v1/reference-chain/items?page=16&payload_kb=0",
    );
    assert.equal(data.length, 7);
    assert.equal(paging.nextPage, null);
    assert.deepEqual(refs.chain, ["page-000015", "page-000016"]);
    const detail = await get<{ refs: { chain: string[] } }>(
      "/api/v1/reference-chain/detail/382?payload_kb=0&ref_mode=windowed",
    );
    assert.deepEqual(detail.refs.chain, ["detail-000381", "detail-000382"]);
    assert.equal((await ask("/api/v1/reference-chain/detail/0")).status, 404);
    assert.equal((await ask("/api/v1/reference-chain/detail/20001")).status, 400);
  });

  it("answers with the errors it is asked for, Retry-After included", async () => {
    const kinds = { rate_limit: 429, server_error: 500, unavailable: 503, auth: 401, 403: 403 };
    for (const [kind, status] of Object.entries(kinds)) {
      assert.equal((await ask(`/api/v1/errors?error_type=${kind}`)).status, status, kind);
    }
    const limited = await ask("/api/v1/errors?error_type=429&retry_after=3");
    assert.equal(limited.headers.get("retry-after"), "3");
    assert.equal((await ask("/api/v1/errors")).status, 200);
    assert.equal((await ask("/api/v1/patient/conditions")).status, 422);
    assert.equal((await ask("/api/v1/assessments?page=x")).status, 422);
    assert.deepEqual((await ask("/nowhere")).body, { detail: "Not Found" });
    assert.equal((await ask("/api/v1/assessments", { method: "POST" })).status, 405);
  });

  it("limits rates within a second", async () => {
    const path = "/api/v1/rate-limited?requests_per_second=2";
    const replies = await Promise.all([ask(path), ask(path), ask(path)]);
    assert.deepEqual(replies.map(reply => reply.status).sort(), [200, 200, 429]);
  });

  it("patient records are FHIR bundles of the asked size, linked to the next page", async () => {
    const query = "patientId=5&min_delay=0&max_delay=0&payload_kb=20";
    const first = await get<Bundle>(`/api/v1/patient-records?${query}`);
    const { totalPages } = first.meta;
    assert.ok(JSON.stringify(first).length > 20_000);
    assert.equal(first.entry.length, 10);
    assert.equal(first.link.length, 2);
    const last = await get<Bundle>(`/api/v1/patient-records?${query}&page=${totalPages}`);
    assert.equal(last.link.length, 1);
    const beyond = await ask(`/api/v1/patient-records?${query}&page=${totalPages + 1}`);
    assert.equal(beyond.status, 404);
  });

  it("a concurrency probe shows how many were in flight", async () => {
    await ask("/api/v1/concurrency/reset", { method: "POST" });
    const probe = "/api/v1/concurrency/probe?delay_seconds=0.1&label=mine";
    await Promise.all([ask(probe), ask(probe), ask(probe)]);
    const stats = await get<Record<string, number> & { recent_events: unknown[] }>(
      "/api/v1/concurrency/stats",
    );
    assert.deepEqual([stats["started"], stats["completed"], stats["max_active"]], [3, 3, 3]);
    assert.equal(stats.recent_events.length, 6);
    assert.equal((await ask("/api/v1/concurrency/probe?delay_seconds=301")).status, 422);
  });

  it("echoes a request as httpbin does, and lists 100 posts", async () => {
    const headers = { "content-type": "application/json", "x-mine": "1" };
    const sent = { method: "POST", headers, body: JSON.stringify({ a: [1] }) };
    const { body } = await ask<Echo>("/anything/deep/path?x=1&y=2&y=3", sent);
    assert.deepEqual(body.args, { x: "1", y: ["2", "3"] });
    assert.deepEqual(body.json, { a: [1] });
    assert.deepEqual([body.data, body.method], ['{"a":[1]}', "POST"]);
    assert.equal(body.headers["X-Mine"], "1");
    const posts = await get<Record<string, unknown>[]>("/posts");
    assert.equal(posts.length, 100);
    assert.deepEqual(Object.keys(posts[99]!), ["userId", "id", "title", "body"]);
  });

  it("counts its calls by route and its replies by status", async () => {
    const own = await startMockApi();
    await fetch(`${own.url}/posts/1`);
    await fetch(`${own.url}/posts/2`);
    await fetch(`${own.url}/posts/2000`);
    assert.deepEqual(own.calls, { total: 3, "GET /posts/{id}": 3 });
    assert.deepEqual(own.statuses, { 200: 2, 404: 1 });
    await own.close();
  });
});
