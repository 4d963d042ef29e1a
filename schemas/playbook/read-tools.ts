/** The `tool` of a step: one tool, or a pipeline of labelled tasks. */
import { isObject } from "../json.ts";
import { describeValue } from "./explain.ts";
import { refuse } from "./findings.ts";
import { toolGrammar } from "./grammar.ts";
import type { Task } from "./model.ts";
import { checkJump } from "./read-rules.ts";
import { readToolBody } from "./read-tool-body.ts";
import { originKey, rulesPath } from "./reading.ts";
import type { Pipeline, Reading, TaskBody } from "./reading.ts";
import type { Path } from "./source.ts";

/** One element of a pipeline before it is read. */
interface Entry {
  label: string;
  raw: Record<string, unknown>;
  path: Path;
  /** true when `name` said the label, and is therefore no field of the tool. */
  named: boolean;
}

/**
 * The tasks of a step. A single tool is one task `<step>_task`; in a list, `- {name, kind, …}` and
 * `- label: {kind, …}` name their task, others are `task_<position>` counted from 1.
 */
export function readTools(reading: Reading, path: Path, raw: unknown, step: string): Task[] {
  if (isObject(raw)) {
    return readEntries(reading, step, [{ label: `${step}_task`, raw, path, named: false }]);
  }
  if (!Array.isArray(raw)) return [];
  if (raw.length === 0) {
    const message = "a pipeline needs at least one task";
    refuse(reading, path, { message, hint: "a step that does nothing: use kind: noop" });
  }
  const entries = raw
    .map((item, index) => readEntry(reading, [...path, index], item, `task_${index + 1}`))
    .filter(entry => entry !== undefined);
  refuseDuplicates(reading, entries);
  return readEntries(reading, step, entries);
}

function readEntries(reading: Reading, step: string, entries: Entry[]): Task[] {
  const labels = entries.map(entry => entry.label);
  return entries.map((entry, position) => {
    reading.origins.set(originKey(step, entry.label), entry.path);
    const body = readToolBody(reading, entry.path, entry.raw, { labels, position });
    const task =
      body.kind === "workbook" ? callWorkbook(reading, entry, body, { labels, position }) : body;
    if (entry.named && body.kind !== "workbook") delete task.config["name"];
    return { label: entry.label, ...task };
  });
}

function readEntry(
  reading: Reading,
  path: Path,
  item: unknown,
  unnamed: string,
): Entry | undefined {
  if (!isObject(item)) {
    const message = `a task must be a map, is ${describeValue(item)}`;
    refuse(reading, path, { message, expected: "{name, kind, …}" });
    return undefined;
  }
  const [only, ...others] = Object.keys(item);
  const inner = only !== undefined && others.length === 0 ? item[only] : undefined;
  if (isObject(inner) && !Object.hasOwn(toolGrammar.shape, only!) && only !== "name") {
    return { label: only!, raw: inner, path: [...path, only!], named: false };
  }
  const name = item["name"];
  if (name === undefined || name === null) return { label: unnamed, raw: item, path, named: false };
  if (typeof name === "string" && name.trim() !== "") {
    return { label: name, raw: item, path, named: true };
  }
  const message = `'name' must be text, is ${describeValue(name)}`;
  refuse(reading, [...path, "name"], { message, expected: "text" });
  return { label: unnamed, raw: item, path, named: true };
}

function refuseDuplicates(reading: Reading, entries: Entry[]): void {
  const seen = new Set<string>();
  for (const { label, path, named } of entries) {
    const place = named ? [...path, "name"] : path;
    if (seen.has(label)) {
      const message = `label '${label}' is used twice in this pipeline`;
      refuse(reading, place, { message, expected: "a label of its own for each task" });
    }
    if (label === "previous") {
      const message = "'previous' cannot be a label: do: jump uses it for the task before";
      refuse(reading, place, { message });
    }
    seen.add(label);
  }
}

/** The workbook task's body with the caller's fields over it; `input` is merged key by key. */
function callWorkbook(
  reading: Reading,
  { path }: Entry,
  call: TaskBody,
  pipeline: Pipeline,
): TaskBody {
  const { name, task, ...config } = call.config;
  const wanted = task ?? name;
  if (typeof wanted !== "string") return call;
  const found = reading.workbook.get(wanted);
  if (!found) {
    const names = [...reading.workbook.keys()];
    refuse(reading, [...path, task === undefined ? "name" : "task"], {
      message: `unknown workbook task '${wanted}'`,
      expected: names.join(" | ") || "a workbook with this task",
      near: [wanted, names],
    });
    return call;
  }
  const { body } = found;
  body.rules.forEach((rule, index) => {
    if (rule.to === undefined || call.rules.length > 0) return;
    checkJump(reading, [...rulesPath(found.path), index, "then", "to"], rule.to, pipeline);
  });
  const auth = call.auth ?? body.auth;
  const output = call.output ?? body.output;
  return {
    kind: body.kind,
    ...(auth !== undefined && { auth }),
    input: { ...body.input, ...call.input },
    config: { ...body.config, ...config },
    rules: call.rules.length > 0 ? call.rules : body.rules,
    set: { ...body.set, ...call.set },
    ...(output !== undefined && { output }),
  };
}
