/** Log lines for people: one short line each, instead of JSON. */
import { isObject } from "../../schemas/json.ts";
import type { LogSink } from "./pino.ts";

const COLORS: Record<string, string> = {
  fatal: "\u001b[41m",
  error: "\u001b[31m",
  warn: "\u001b[33m",
  info: "\u001b[32m",
  debug: "\u001b[36m",
  trace: "\u001b[90m",
};
const RESET = "\u001b[0m";
/** Said once per node at the start, and noise on every line of a single process. */
const QUIET = new Set(["level", "time", "msg", "nodeID", "ns", "mod", "svc", "ver", "err"]);

/** A pino destination that rewrites each JSON line before it reaches the sink. */
export function textDestination(sink: LogSink) {
  return { write: (line: string) => void sink.write(formatLine(line, sink.isTTY === true)) };
}

/** `12:30:01 WARN  worker  lease.late execution_id=7 (error …)`, with a trailing line break. */
export function formatLine(line: string, colored: boolean): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line;
  }
  const level = String(entry["level"] ?? "info");
  const word = level.toUpperCase().padEnd(5);
  const time = new Date(String(entry["time"])).toTimeString().slice(0, 8);
  const from = String(entry["svc"] ?? entry["mod"] ?? "").toLowerCase();
  const parts = [
    time,
    colored ? `${COLORS[level] ?? ""}${word}${RESET}` : word,
    from,
    String(entry["msg"] ?? ""),
    ...Object.keys(entry)
      .filter(key => !QUIET.has(key))
      .map(key => `${key}=${shown(entry[key])}`),
  ];
  return `${parts.filter(part => part !== "").join(" ")}\n${errorLines(entry["err"])}`;
}

function shown(value: unknown): string {
  return typeof value === "string" && /^[^\s"]*$/.test(value) ? value : JSON.stringify(value);
}

function errorLines(error: unknown): string {
  if (!isObject(error)) return "";
  const name = String(error["type"] ?? error["name"] ?? "error");
  const head = `    ${name}: ${String(error["message"] ?? "")}\n`;
  const stack = typeof error["stack"] === "string" ? error["stack"].split("\n").slice(0, 8) : [];
  const frames = stack.map(frame => `      ${frame.trim()}\n`).join("");
  return head + frames + errorLines(error["cause"]);
}
