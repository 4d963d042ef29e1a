// The mock API's patients: FHIR-like records, the endpoints of the pft playbooks, a concurrency
// probe.
import { setTimeout as pause } from "node:timers/promises";
import {
  decimal,
  integer,
  RateWindow,
  Refusal,
  text,
  type MockRequest,
  type Reply,
} from "./mock-api-http.ts";
import {
  demographics,
  isPagedType,
  mdsDetail,
  mdsIdsOf,
  pagesOf,
  patientRecord,
  seeded,
  type PagedType,
} from "./mock-api-records.ts";
import type { MockApiOptions, Routes } from "./mock-api.ts";

const MAX_BATCH_PATIENTS = 500;

export function patientRoutes(options: Required<MockApiOptions>): Routes {
  const recent = new RateWindow();
  /** The limit that all single-patient endpoints share. */
  const limited =
    (answer: (request: MockRequest) => Reply) =>
    (request: MockRequest): Reply => {
      if (recent.admit(options.rate_limit).ok) return answer(request);
      throw new Refusal(429, { detail: "Rate limit exceeded" }, { "retry-after": "1" });
    };
  return {
    "GET /api/v1/patient/demographics": limited(request => ({
      body: demographics(text(request, "patientId")),
    })),
    "GET /api/v1/patient/{type}": limited(patientPage),
    "GET /api/v1/mds/assessment_ids": limited(request => {
      const patientId = text(request, "patientId");
      const assessmentIds = mdsIdsOf(patientId);
      return { body: { patientId, assessmentIds, count: assessmentIds.length } };
    }),
    "GET /api/v1/mds/assessment/{id}": limited(request => ({
      body: mdsDetail(request.path["id"]!),
    })),
    "GET /api/v1/pft/mds/details": limited(mdsDetails),
    "GET /api/v1/pft/batch/{type}": patientBatch,
    ...recordRoutes(options),
    ...concurrencyRoutes(),
  };
}

function patientPage(request: MockRequest): Reply {
  const type = request.path["type"]!;
  if (!isPagedType(type)) throw new Refusal(404, { detail: "Not Found" });
  const patientId = text(request, "patientId");
  const page = integer(request, "page", 1, { min: 1 });
  const total = pagesOf(patientId, type);
  if (page > total) throw new Refusal(404, { error: "page not found" });
  const data = [patientRecord(patientId, type, page, 0)];
  return { body: { data, paging: { hasMore: page < total, page, pageSize: 1, total } } };
}

function mdsDetails(request: MockRequest): Reply {
  const assessment_id = text(request, "assessmentId");
  if (assessment_id.includes(",")) throw new Refusal(400, { detail: "One assessmentId only" });
  return { body: { rowCount: 1, rows: [{ assessment_id, payload: mdsDetail(assessment_id) }] } };
}

function patientBatch(request: MockRequest): Reply {
  const type = request.path["type"]!;
  const ids = text(request, "patientIds").split(",").filter(Boolean).map(Number);
  if (ids.some(id => !Number.isInteger(id))) {
    throw new Refusal(422, { detail: "patientIds should be integers" });
  }
  if (ids.length > MAX_BATCH_PATIENTS) {
    throw new Refusal(400, { detail: `At most ${MAX_BATCH_PATIENTS} patientIds` });
  }
  const pageSize = integer(request, "pageSize", 10, { min: 1 });
  const perFacility = integer(request, "patientsPerFacility", 1000, { min: 1 });
  const rows = ids.flatMap(id => {
    const facility_mapping_id = Math.floor((id - 1) / perFacility) + 1;
    const key = { patient_id: id, facility_mapping_id };
    return batchRows(type, id, pageSize).map(row => ({ ...key, ...row }));
  });
  return {
    body: { dataType: type, patientCount: ids.length, rowCount: rows.length, rows },
  };
}

function batchRows(type: string, id: number, pageSize: number): Record<string, unknown>[] {
  if (type === "demographics") return [{ payload: demographics(id) }];
  if (type === "mds") {
    const assessment_id = `MDS-${id}-${pagesOf(id, "assessments")}`;
    return [{ assessment_id, payload: mdsDetail(assessment_id) }];
  }
  if (!isPagedType(type)) throw new Refusal(400, { detail: `Unknown data type ${type}` });
  const pages = pagesOf(id, type);
  return Array.from({ length: pages }, (_, at) => batchPage(id, type, at + 1, pages, pageSize));
}

function batchPage(id: number, type: PagedType, page: number, pages: number, pageSize: number) {
  const indexes = Array.from({ length: pageSize }, (_, index) => index);
  const data = indexes.map(index => patientRecord(id, type, page, index));
  const paging = { hasMore: page < pages, page, pageSize, total: pages * pageSize };
  return { page_number: page, payload: { data, paging }, is_last_page: page === pages };
}

function recordRoutes(options: Required<MockApiOptions>): Routes {
  const recent = new RateWindow();
  return {
    "GET /api/v1/patient-records": async request => {
      const patientId = text(request, "patientId");
      const page = integer(request, "page", 1, { min: 1 });
      const pageSize = integer(request, "pageSize", 10, { min: 1 });
      const payloadKb = integer(request, "payload_kb", options.payload_kb, { min: 0 });
      const least = decimal(request, "min_delay", options.min_delay_seconds, { min: 0 });
      const most = decimal(request, "max_delay", options.max_delay_seconds, { min: 0 });
      const limit = integer(request, "rate_limit", options.rate_limit, { min: 1 });
      if (!recent.admit(limit).ok) {
        const message = `More than ${limit} requests per second`;
        throw new Refusal(429, { error: "Too Many Requests", message }, { "retry-after": "1" });
      }
      const delaySeconds = least + Math.random() * Math.max(0, most - least);
      await pause(delaySeconds * 1000);
      const totalPages = 2 + seeded(patientId, 4);
      if (page > totalPages) throw new Refusal(404, { detail: "Page not found" });
      const meta = { patientId, page, pageSize, totalPages, delaySeconds };
      return { body: bundle(request.url, meta, payloadKb) };
    },
  };
}

interface BundleMeta {
  patientId: string;
  page: number;
  pageSize: number;
  totalPages: number;
  delaySeconds: number;
}

/** A FHIR search result whose payload is spread over its entries. */
function bundle(url: URL, meta: BundleMeta, payloadKb: number): Record<string, unknown> {
  const { patientId, page, pageSize, totalPages } = meta;
  const fill = "M".repeat(Math.floor((payloadKb * 1024) / pageSize));
  const entry = Array.from({ length: pageSize }, (_, index) => {
    const id = `${patientId}-p${page}-e${index}`;
    const resource = {
      resourceType: "MedicationStatement",
      id,
      status: "active",
      subject: { reference: `Patient/${patientId}` },
      _payload: fill,
    };
    return { fullUrl: `${url.origin}/fhir/MedicationStatement/${id}`, resource };
  });
  const next = new URL(url);
  next.searchParams.set("page", String(page + 1));
  const link = [{ relation: "self", url: url.href }];
  if (page < totalPages) link.push({ relation: "next", url: next.href });
  return {
    resourceType: "Bundle",
    type: "searchset",
    total: totalPages * pageSize,
    link,
    entry,
    meta: { ...meta, estimatedResponseKB: payloadKb },
  };
}

function concurrencyRoutes(): Routes {
  const fresh = { started: 0, completed: 0, active: 0, max_active: 0 };
  const counts = { ...fresh };
  let recent: Record<string, unknown>[] = [];
  const note = (phase: string, request_id: number, label: string): void => {
    recent = [...recent, { phase, request_id, label, ts: Date.now() / 1000, ...counts }].slice(
      -200,
    );
  };
  return {
    "POST /api/v1/concurrency/reset": () => {
      Object.assign(counts, fresh);
      recent = [];
      return { body: { status: "reset" } };
    },
    "GET /api/v1/concurrency/stats": () => ({ body: { ...counts, recent_events: recent } }),
    "GET /api/v1/concurrency/probe": async request => {
      const delay_seconds = decimal(request, "delay_seconds", 1, { min: 0, max: 300 });
      const label = text(request, "label", "probe");
      const request_id = ++counts.started;
      const active_at_start = ++counts.active;
      counts.max_active = Math.max(counts.max_active, counts.active);
      note("start", request_id, label);
      const begun = performance.now();
      await pause(delay_seconds * 1000);
      counts.completed++;
      // A reset meanwhile has forgotten us.
      counts.active = Math.max(0, counts.active - 1);
      note("end", request_id, label);
      const duration_seconds = (performance.now() - begun) / 1000;
      const about = { request_id, label, delay_seconds, duration_seconds, active_at_start };
      return { body: { ...about, ...counts } };
    },
  };
}
