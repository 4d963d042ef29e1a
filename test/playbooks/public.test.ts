// The public playbooks, unmodified: each ends as it must. A table of them all stands at the end.
import { strict as assert } from "node:assert";
import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Json } from "../../schemas/json.ts";
import { ask } from "../support/actors.ts";
import { assertSound } from "../support/log-checker.ts";
import { startMockApi, type MockApi } from "../support/mock-api.ts";
import { ended, startNode, type TestNode } from "../support/node.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";
import { endAll, newFolder, noetl } from "../support/process.ts";
import { arePublicPlaybooksHere, credentialsFor, PUBLIC } from "../support/public-playbooks.ts";
import { needsPython } from "../support/python.ts";
import type { Ended, PublicCase } from "./public-case.ts";
import { BROKEN, CASES, CHILDREN, PENDING } from "./public-cases.ts";

interface View {
  execution_id: string;
  status: string;
  error?: Record<string, unknown> | null;
  result?: unknown;
}

interface Line {
  playbook: string;
  status: string;
  expected: string;
  seconds: string;
}

describe("public playbooks", function () {
  this.timeout(60_000);
  if (!arePublicPlaybooksHere()) return;
  let api: MockApi;
  let store: TestDatabase;
  let target: TestDatabase;
  let node: TestNode;
  const lines: Line[] = [];

  before(async function () {
    await needsPython(this);
    store = await testDatabase({ migrated: true });
    target = await testDatabase();
    node = await startNode({ url: store.url, env: credentialsFor(target.url) });
  });
  beforeEach(async () => void (api = await startMockApi({ rate_limit: 100_000 })));
  afterEach(endAll);
  afterEach(() => api.close());
  after(async () => {
    if (!node) return;
    process.stdout.write(tableOf(lines));
    await node.stop();
    await store.drop();
    await target.drop();
  });

  const textOf = (file: string): string => readFileSync(join(PUBLIC, file), "utf8");

  async function inProcess({ file, payload, limitMs }: PublicCase): Promise<View> {
    const started = await node.call<{ execution_id: string }>("executions.start", {
      playbook: textOf(file),
      payload: payload?.(api) ?? {},
    });
    const view = await ended(node.broker, started.execution_id, limitMs);
    return { ...view, error: view.error as Record<string, unknown> | null };
  }

  /** `noetl run FILE`, in a folder of its own, over the same database. */
  async function byCommand({ file, payload, cli }: PublicCase): Promise<View> {
    const folder = await newFolder();
    for (const [to, from] of Object.entries(cli?.files ?? {})) {
      mkdirSync(dirname(join(folder, to)), { recursive: true });
      cpSync(join(PUBLIC, from), join(folder, to));
    }
    const env = {
      ...{ NOETL_DATA_DIR: folder, DATABASE_URL: store.url },
      ...credentialsFor(cli?.ownStore ? store.url : target.url),
    };
    const given = JSON.stringify(payload?.(api) ?? {});
    const args = ["run", join(PUBLIC, file), "--payload", given, "--json"];
    const { stdout, stderr, code } = await noetl(args, env);
    assert.ok(stdout.startsWith("{"), `exit code ${code}: ${stderr}`);
    const view = JSON.parse(stdout) as View;
    assert.equal(code, view.status === "COMPLETED" ? 0 : 1);
    return view;
  }

  function look({ execution_id, error, result }: View): Ended {
    const one = async <Row extends object>(url: string, sql: string, params: unknown[] = []) => {
      const [row] = await ask<Row>(url, sql, params);
      return row as Row;
    };
    return {
      ...{ execution_id, error, result, api, target: target.url },
      async of(step) {
        const params = { execution_id, step };
        const { value } = await node.call<{ value: Json }>("executions.result", params);
        return value as Record<string, Json>;
      },
      row: sql => one(target.url, sql),
      async entries() {
        const { events } = await assertSound(store.url, execution_id);
        const counts: Record<string, number> = {};
        for (const { event_type, meta } of events) {
          if (event_type !== "step.enter" && meta["enter"] !== true) continue;
          const step = String(meta["step"]);
          counts[step] = (counts[step] ?? 0) + 1;
        }
        return counts;
      },
      async largestRow() {
        const sql = `select max(octet_length(coalesce(result::text, ''))
            + octet_length(coalesce(context::text, '')) + octet_length(meta::text)) as bytes
          from noetl.event where execution_id = $1`;
        return (await one<{ bytes: number }>(store.url, sql, [execution_id])).bytes;
      },
      async children(path) {
        const sql = `select count(*)::integer as n from noetl.execution
          where parent_execution_id = $1 and path = $2 and status = 'COMPLETED'`;
        return (await one<{ n: number }>(store.url, sql, [execution_id, path])).n;
      },
    };
  }

  for (const one of CASES) {
    const { file, as, status = "COMPLETED", expected } = one;
    const name = as === undefined ? file : `${file} (${as})`;
    it(`${name}: ${expected}`, async function () {
      if (one.limitMs) this.timeout(one.limitMs);
      const line = { playbook: name, status: "did not end", expected, seconds: "" };
      lines.push(line);
      for (const child of one.starts ?? []) {
        await node.call("catalog.register", { content: textOf(child) });
      }
      if (one.prepare) await ask(target.url, one.prepare);
      const begun = performance.now();
      const view = await (one.cli ? byCommand(one) : inProcess(one));
      line.status = view.status;
      line.seconds = ((performance.now() - begun) / 1_000).toFixed(1);
      try {
        assert.equal(view.status, status, JSON.stringify(view.error));
        await one.check?.(look(view));
        await assertSound(store.url, view.execution_id);
      } catch (error) {
        line.status += ", and not what was expected";
        throw error;
      }
    });
  }

  for (const [file, lacks] of Object.entries(PENDING)) {
    it(`${file} is refused with what this build lacks`, async () => {
      lines.push({ playbook: file, status: "pending", expected: lacks.source, seconds: "" });
      await refused(file, lacks);
    });
  }

  for (const [file, message] of Object.entries(BROKEN)) {
    it(`${file} is refused`, async () => {
      lines.push({ playbook: file, status: "refused", expected: message.source, seconds: "" });
      await refused(file, message);
    });
  }

  async function refused(file: string, message: RegExp): Promise<void> {
    const started = node.call("executions.start", { playbook: textOf(file), payload: {} });
    await assert.rejects(started, (error: Error & { code?: number }) => {
      assert.equal(error.code, 422, error.message);
      assert.match(error.message, message);
      return true;
    });
  }

  it("none is left out", () => {
    const files = readdirSync(PUBLIC, { recursive: true, encoding: "utf8" });
    const known = [CASES.map(one => one.file), CHILDREN, Object.keys({ ...PENDING, ...BROKEN })];
    const playbooks = files.filter(name => name.endsWith(".yaml")).sort();
    assert.deepEqual([...new Set(known.flat())].sort(), playbooks);
  });
});

function tableOf(lines: readonly Line[]): string {
  const width = (of: (line: Line) => string) => Math.max(...lines.map(line => of(line).length), 8);
  const [first, second] = [width(line => line.playbook), width(line => line.status)];
  const rows = lines.map(({ playbook, status, expected, seconds }) => {
    const took = seconds === "" ? "" : `${seconds} s`;
    const cells = [playbook.padEnd(first), status.padEnd(second), took.padStart(8), expected];
    return `    ${cells.join("  ")}`;
  });
  return `\n${rows.join("\n")}\n\n`;
}
