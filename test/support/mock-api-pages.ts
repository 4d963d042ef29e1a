// The mock API's paginated lists, its flaky, failing and rate-limited pages, and its chains of
// refs.
import { setTimeout as pause } from "node:timers/promises";
import { choice, integer, RateWindow, Refusal, text, type MockRequest } from "./mock-api-http.ts";
import { filler, padded } from "./mock-api-records.ts";
import type { Routes } from "./mock-api.ts";

const TOTAL = 35;
const PAGE_SIZE = 10;
const HEAVY_TOTAL = 100;
const CATALOGUE_TOTAL = 250;

/** The numbers `first..last` of a page, and whether another follows. */
function slice(page: number, pageSize: number, total: number): { ids: number[]; hasMore: boolean } {
  const first = (page - 1) * pageSize;
  const length = Math.max(0, Math.min(pageSize, total - first));
  const ids = Array.from({ length }, (_, at) => first + at + 1);
  return { ids, hasMore: first + pageSize < total };
}

function pageOf(request: MockRequest, pageSize: number): { page: number; pageSize: number } {
  return {
    page: integer(request, "page", 1, { min: 1 }),
    pageSize: integer(request, "pageSize", pageSize, { min: 1, max: 1000 }),
  };
}

export function pageRoutes(): Routes {
  return {
    "GET /api/v1/assessments": assessments,
    "GET /api/v1/users": users,
    "GET /api/v1/events": events,
    "GET /data": catalogue,
    "GET /api/v1/heavy": heavy,
    "GET /api/v1/heavy/stats": () => ({
      body: { total: HEAVY_TOTAL, default_page_size: PAGE_SIZE, default_payload_kb: 10 },
    }),
    "GET /api/v1/reference-chain/items": chainItems,
    "GET /api/v1/reference-chain/detail/{id}": chainDetail,
    "GET /api/v1/errors": errors,
    ...flakyRoutes(),
    ...rateLimitedRoutes(),
  };
}

function assessments(request: MockRequest) {
  const { page, pageSize } = pageOf(request, PAGE_SIZE);
  const { ids, hasMore } = slice(page, pageSize, TOTAL);
  const data = ids.map(id => ({ id, name: `Assessment ${id}`, score: 50 + (id % 50) }));
  return { body: { data, paging: { hasMore, page, pageSize, total: TOTAL } } };
}

function users(request: MockRequest) {
  const offset = integer(request, "offset", 0, { min: 0 });
  const limit = integer(request, "limit", PAGE_SIZE, { min: 1 });
  const length = Math.max(0, Math.min(limit, TOTAL - offset));
  const listed = Array.from({ length }, (_, at) => {
    const id = offset + at + 1;
    return { id, username: `user${id}`, email: `user${id}@example.com` };
  });
  return {
    body: { users: listed, has_more: offset + limit < TOTAL, offset, limit, total: TOTAL },
  };
}

function events(request: MockRequest) {
  const cursor = Buffer.from(text(request, "cursor", ""), "base64").toString();
  const page = /^[1-9]\d*$/.test(cursor) ? Number(cursor) : 1;
  const limit = integer(request, "limit", PAGE_SIZE, { min: 1 });
  const { ids, hasMore } = slice(page, limit, TOTAL);
  const listed = ids.map(id => ({
    id,
    type: "user_action",
    timestamp: `2024-01-${padded((id % 28) + 1, 2)}T12:00:00Z`,
    data: { action: `event_${id}` },
  }));
  const next = hasMore ? Buffer.from(String(page + 1)).toString("base64") : null;
  return { body: { events: listed, next_cursor: next, limit } };
}

/** Ours: the `{api_url}/data` that some example playbooks ask for. */
function catalogue(request: MockRequest) {
  const { page, pageSize } = pageOf(request, 100);
  const { ids, hasMore } = slice(page, pageSize, CATALOGUE_TOTAL);
  const items = ids.map(id => ({ id, name: `Item ${id}`, value: id * 10 }));
  return { body: { items, paging: { hasMore, page, pageSize, total: CATALOGUE_TOTAL } } };
}

function plainItems(page: number) {
  const { ids, hasMore } = slice(page, PAGE_SIZE, TOTAL);
  const data = ids.map(id => ({ id, value: `item_${id}` }));
  return { data, paging: { hasMore, page, pageSize: PAGE_SIZE } };
}

function flakyRoutes(): Routes {
  const attempts = new Map<number, number>();
  return {
    "GET /api/v1/flaky": request => {
      const page = integer(request, "page", 1, { min: 1 });
      const failing = text(request, "fail_on", "").split(",").map(Number);
      const attempt = (attempts.get(page) ?? 0) + 1;
      attempts.set(page, attempt);
      if (attempt === 1 && failing.includes(page)) {
        throw new Refusal(500, { detail: "Simulated failure" });
      }
      return { body: plainItems(page) };
    },
    "POST /api/v1/flaky/reset": () => {
      attempts.clear();
      return { body: { status: "reset", message: "Flaky counters cleared" } };
    },
  };
}

function heavy(request: MockRequest) {
  const { page, pageSize } = pageOf(request, PAGE_SIZE);
  const payload_kb = integer(request, "payload_kb", 10, { min: 0, max: 10_240 });
  const { ids, hasMore } = slice(page, pageSize, HEAVY_TOTAL);
  const data = ids.map(id => ({
    id,
    name: `Heavy Item ${id}`,
    score: 50 + (id % 50),
    category: `category_${id % 5}`,
    metadata: { source: "mock", version: 1, tags: [`tag_${id % 3}`, `tag_${id % 7}`] },
    description: `Item ${id} with a payload of ${payload_kb} KB`,
    payload: filler(payload_kb, `heavy:${id}`),
  }));
  const meta = {
    payload_kb_per_item: payload_kb,
    estimated_response_kb: payload_kb * ids.length,
  };
  return { body: { data, paging: { hasMore, page, pageSize, total: HEAVY_TOTAL }, meta } };
}

const CHAIN_MODES = ["linked", "windowed", "expanded"];

/** The refs up to number `last`: the previous and this one, the last N, or all. */
function chainOf(kind: string, last: number, mode: string, chainWindow: number): string[] {
  const length = mode === "linked" ? 2 : mode === "windowed" ? chainWindow : last;
  const first = Math.max(1, last - length + 1);
  return Array.from({ length: last - first + 1 }, (_, at) => `${kind}-${padded(first + at, 6)}`);
}

function refOrNull(kind: string, number: number, last = Infinity): string | null {
  return number >= 1 && number <= last ? `${kind}-${padded(number, 6)}` : null;
}

function chainItems(request: MockRequest) {
  const total = integer(request, "total", 382, { min: 1 });
  const pageSize = Math.min(200, Math.max(1, integer(request, "pageSize", 25)));
  const lastPage = Math.ceil(total / pageSize);
  const page = Math.min(lastPage, Math.max(1, integer(request, "page", 1)));
  const payload_kb = integer(request, "payload_kb", 1, { min: 0 });
  const mode = choice(request, "ref_mode", CHAIN_MODES);
  const chain = chainOf("page", page, mode, integer(request, "chain_window", 2, { min: 1 }));
  const { ids, hasMore } = slice(page, pageSize, total);
  const data = ids.map(id => ({
    record_id: id,
    record_ref: refOrNull("record", id),
    prev_ref: refOrNull("record", id - 1),
    batch: page,
    payload: filler(payload_kb, `record:${id}`),
  }));
  const refs = {
    mode,
    root_ref: "run-root-000001",
    page_ref: refOrNull("page", page),
    prev_page_ref: refOrNull("page", page - 1),
    next_page_ref: refOrNull("page", page + 1, lastPage),
    chain,
    chain_length: chain.length,
  };
  const paging = { hasMore, page, pageSize, total, nextPage: hasMore ? page + 1 : null };
  return { body: { data, paging, refs, meta: { payload_kb_per_item: payload_kb } } };
}

function chainDetail(request: MockRequest) {
  const id = Number(request.path["id"]);
  if (!Number.isInteger(id)) throw new Refusal(422, { detail: "id should be a valid integer" });
  if (id <= 0) throw new Refusal(404, { detail: "Record not found" });
  if (id > 20_000) throw new Refusal(400, { detail: "Record id out of range" });
  const payload_kb = integer(request, "payload_kb", 2, { min: 0 });
  const mode = choice(request, "ref_mode", CHAIN_MODES);
  const chain = chainOf("detail", id, mode, integer(request, "chain_window", 2, { min: 1 }));
  const refs = {
    mode,
    detail_ref: refOrNull("detail", id),
    prev_detail_ref: refOrNull("detail", id - 1),
    parent_ref: request.url.searchParams.get("parent_ref"),
    chain,
    chain_length: chain.length,
  };
  const summary = { classification: `class-${id % 7}`, score: 40 + (id % 60), payload_kb };
  const payload = filler(payload_kb, `detail:${id}`);
  return { body: { record_id: id, status: "ok", refs, summary, payload } };
}

async function errors(request: MockRequest) {
  const page = integer(request, "page", 1, { min: 1 });
  const kind = text(request, "error_type", "");
  const retryAfter = { "retry-after": String(integer(request, "retry_after", 5, { min: 0 })) };
  const refuse = (status: number, error: string, headers?: Record<string, string>) =>
    new Refusal(status, { error, message: `Simulated ${error}` }, headers);
  if (["rate_limit", "429"].includes(kind)) throw refuse(429, "Too Many Requests", retryAfter);
  if (["server_error", "500"].includes(kind)) throw refuse(500, "Internal Server Error");
  if (["unavailable", "503"].includes(kind)) throw refuse(503, "Service Unavailable", retryAfter);
  if (["auth", "401"].includes(kind)) throw refuse(401, "Unauthorized");
  if (["forbidden", "403"].includes(kind)) throw refuse(403, "Forbidden");
  if (["not_found", "404"].includes(kind)) throw refuse(404, "Not Found");
  if (kind === "timeout") {
    await pause(30_000, undefined, { ref: false });
    return { body: { data: [], simulated: "timeout" } };
  }
  return { body: plainItems(page) };
}

function rateLimitedRoutes(): Routes {
  const recent = new RateWindow();
  return {
    "GET /api/v1/rate-limited": request => {
      const page = integer(request, "page", 1, { min: 1 });
      const limit = integer(request, "requests_per_second", 2, { min: 1 });
      const { ok, count } = recent.admit(limit);
      if (!ok) {
        const error = { error: "Too Many Requests", requests_in_window: count, limit };
        throw new Refusal(429, error, { "retry-after": "1" });
      }
      const rate_limit = { requests_in_window: count, limit };
      return { body: { ...plainItems(page), rate_limit } };
    },
  };
}
