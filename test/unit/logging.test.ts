/** Log lines: fields in any order, secrets masked, values cut, errors described and not dumped. */
import { strict as assert } from "node:assert";
import { ServiceBroker } from "moleculer";
import { arranged, brokerLogger, createLog } from "../../mixins/logging/pino.ts";
import type { LoggingSettings } from "../../mixins/logging/pino.ts";
import { sanitizeFields, sanitizeText } from "../../mixins/logging/sanitize.ts";
import { formatLine } from "../../mixins/logging/text.ts";
import { Rejected } from "../../schemas/errors.ts";

const SETTINGS: LoggingSettings = {
  level: "debug",
  format: "json",
  valueMaxChars: 100,
  includePayloadOnError: false,
};

function collect(over: Partial<LoggingSettings> = {}) {
  const lines: string[] = [];
  const sink = { write: (line: string) => lines.push(line) };
  const settings = { ...SETTINGS, ...over };
  return { settings, sink, lines, entries: () => lines.map(line => JSON.parse(line) as Entry) };
}
type Entry = Record<string, unknown> & { err?: Record<string, unknown> };

describe("log lines", () => {
  it("keep an object and an error that come after the text, as Moleculer writes them", async () => {
    const { settings, sink, entries } = collect();
    const logger = brokerLogger(settings, sink) as never;
    const broker = new ServiceBroker({ logger, registry: { stopDelay: 0 } });
    broker.logger.error("It failed", { execution_id: "7" }, new Rejected("No", 404));
    const entry = entries().find(line => line["msg"] === "It failed");
    assert.equal(entry?.["execution_id"], "7");
    assert.equal(entry?.["level"], "error");
    assert.deepEqual([entry?.err?.["type"], entry?.err?.["code"]], ["REJECTED", 404]);
    await broker.stop();
  });

  it("do not interpolate what a text happens to contain", () => {
    const { settings, sink, entries } = collect();
    createLog(settings, sink).info({ a: 1 }, "100% %s %o done");
    assert.equal(entries()[0]?.["msg"], "100% %s %o done");
  });

  it("join texts and keep two errors", () => {
    const [first, second] = [new Error("a"), new Error("b")];
    const { fields, message } = arranged(["one", 2, first, { x: 1 }, second]);
    assert.deepEqual(fields, { err: first, x: 1, err_2: second });
    assert.equal(message, "one 2");
  });

  it("obey the level", () => {
    const { settings, sink, lines } = collect({ level: "warn" });
    const log = createLog(settings, sink);
    log.info("quiet");
    log.warn("loud");
    assert.equal(lines.length, 1);
  });

  it("mask secrets by the name of their key, at any depth, but not numbers", () => {
    const safe = sanitizeFields(
      {
        db_password: "hunter2",
        headers: { Authorization: "Bearer hunter2", "x-api-key": "hunter2", accept: "json" },
        list: [{ access_token: "hunter2" }, { client_secret: "hunter2" }, { Cookie: "hunter2" }],
        max_token: 7,
        dsn: "hunter2",
        credential: "pg_local",
      },
      { ...SETTINGS, valueMaxChars: 1000 },
    );
    assert.doesNotMatch(JSON.stringify(safe), /hunter2/);
    assert.equal(safe["max_token"], 7);
    assert.equal(safe["credential"], "pg_local");
    assert.match(JSON.stringify(safe), /"accept":"json"/);
  });

  it("mask secrets inside texts: user info of URLs, schemes, assignments", () => {
    for (const text of [
      "connect postgres://me:hunter2@db:5432/x failed",
      "nats://hunter2@host",
      "sent Authorization: Bearer hunter2aaaa",
      "GET /x?api_key=hunter2&page=2",
      'body {"password": "hunter2", "a": 1}',
      "password=hunter2 host=db",
      "Basic aHVudGVyMg==hunter2",
    ]) {
      const safe = sanitizeText(text, 400);
      assert.doesNotMatch(safe, /hunter2/, text);
    }
    assert.match(sanitizeText("GET /x?api_key=1&page=2", 400), /page=2/);
    assert.equal(sanitizeText("postgres://db:5432/x", 400), "postgres://db:5432/x");
  });

  it("cut long texts and objects at the limit and say how long they were", () => {
    const safe = sanitizeFields(
      { text: "x".repeat(5000), object: { a: "y".repeat(90), b: "z".repeat(90) } },
      SETTINGS,
    );
    assert.match(String(safe["text"]), /^x{100}…\(5000 chars\)$/);
    assert.match(String(safe["object"]), /^.{100}…\(\d+ chars\)$/);
  });

  it("survive cycles, odd values and getters that throw", () => {
    const cycle: Record<string, unknown> = { big: 10n, when: new Date(0), bytes: Buffer.alloc(9) };
    cycle["self"] = cycle;
    const odd = Object.defineProperty({}, "x", {
      enumerable: true,
      get() {
        throw new Error("no");
      },
    });
    const safe = sanitizeFields({ cycle, odd, f: () => 1 }, { ...SETTINGS, valueMaxChars: 4000 });
    const text = JSON.stringify(safe);
    assert.match(text, /1970-01-01/);
    assert.match(text, /\(9 bytes\)/);
    assert.match(text, /unreadable/);
  });

  it("describe an error by type, message, frames and cause, and its data by keys and size", () => {
    const cause = new Error("at postgres://u:hunter2@h/db");
    const error = new Rejected("Refused", 422, {
      payload: { name: "Ada" },
      issues: [{ field: "x" }],
    });
    error.cause = cause;
    const { err } = sanitizeFields({ err: error }, SETTINGS) as { err: Record<string, unknown> };
    assert.deepEqual([err["type"], err["code"], err["message"]], ["REJECTED", 422, "Refused"]);
    assert.deepEqual(err["data_keys"], ["payload"]);
    assert.deepEqual(err["issues"], [{ field: "x" }]);
    assert.match(String(err["stack"]), /^at .*logging\.test/);
    assert.doesNotMatch(JSON.stringify(err), /Ada|hunter2/);
    assert.match(JSON.stringify(err["cause"]), /at postgres/);
  });

  it("show a redacted preview of an error's payload only when asked", () => {
    const error = new Rejected("Refused", 422, { payload: { name: "Ada", password: "hunter2" } });
    const text = JSON.stringify(
      sanitizeFields({ err: error }, { ...SETTINGS, includePayloadOnError: true }),
    );
    assert.match(text, /Ada/);
    assert.doesNotMatch(text, /hunter2/);
  });

  it("become one short line for people, with the error below", () => {
    const { settings, sink, lines } = collect({ format: "text" });
    createLog(settings, sink).error({ step: "load", err: new Rejected("No", 404) }, "step.failed");
    assert.match(
      lines[0] ?? "",
      /^\d\d:\d\d:\d\d ERROR step\.failed step=load\n {4}REJECTED: No\n/,
    );
  });

  it("are JSON where nobody looks, and for people on a terminal", () => {
    const file = collect({ format: "auto" });
    createLog(file.settings, file.sink).info("x");
    assert.match(file.lines[0] ?? "", /^\{/);
    const terminal = collect({ format: "auto" });
    createLog(terminal.settings, { ...terminal.sink, isTTY: true }).info("x");
    assert.match(terminal.lines[0] ?? "", /INFO/);
    assert.equal(formatLine("not json", false), "not json");
  });
});
