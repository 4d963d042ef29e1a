/** The workbook: named tools that steps call with `kind: workbook`. */
import { isObject } from "../json.ts";
import { describeValue } from "./explain.ts";
import { readMap, refuse } from "./findings.ts";
import { workbookGrammar } from "./grammar.ts";
import { readToolBody } from "./read-tool-body.ts";
import type { Reading } from "./reading.ts";

/** Fills `reading.workbook`. `assert` and `sink` of a task are accepted and ignored. */
export function readWorkbook(reading: Reading, tasks: unknown[]): void {
  tasks.forEach((raw, index) => {
    const path = ["workbook", index];
    if (!isObject(raw)) {
      const message = `a workbook task must be a map, is ${describeValue(raw)}`;
      refuse(reading, path, { message, expected: "{name, tool}" });
      return;
    }
    const { name, tool } = readMap(reading, path, workbookGrammar, raw);
    if (!tool) return;
    const body = readToolBody(reading, [...path, "tool"], tool);
    if (body.kind === "workbook") {
      const message = "a workbook task cannot call the workbook";
      refuse(reading, [...path, "tool", "kind"], { message, expected: "any other kind" });
    }
    if (name === undefined) return;
    if (reading.workbook.has(name)) {
      const message = `workbook task '${name}' is defined twice`;
      refuse(reading, [...path, "name"], { message });
    }
    reading.workbook.set(name, { body, path: [...path, "tool"] });
  });
}
