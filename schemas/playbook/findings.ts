/** What reading a playbook found: issues and warnings, each with place, step and field. */
import type { z } from "zod";
import { formatIssue } from "../errors.ts";
import type { Issue } from "../errors.ts";
import { isObject } from "../json.ts";
import { describeValue, explain } from "./explain.ts";
import { nearest } from "./nearest.ts";
import type { Path, Place, Source } from "./source.ts";
import { OLD_WORDS } from "./words.ts";
import type { WordPlace } from "./words.ts";

/** After so many issues the rest is not reported: nobody reads it, and finding hints takes time. */
export const MAX_ISSUES = 100;

export const TOOL_IS_REQUIRED = "tool is required";

export interface Findings {
  source: Source;
  issues: Issue[];
  warnings: string[];
}

/** What is wrong; place, step and field are added from the path. */
export interface Complaint {
  message: string;
  expected?: string;
  hint?: string;
  /** Looks for the nearest of these words, and says it as the hint when there is no other. */
  near?: [word: string, candidates: Iterable<string>];
}

/** The key or the value at a path, or a line and column inside of the text that is the value. */
export type At = "key" | "value" | Place;

/** Records an issue at a path. */
export function refuse(
  findings: Findings,
  path: Path,
  complaint: Complaint,
  at: At = "value",
): void {
  if (findings.issues.length < MAX_ISSUES)
    findings.issues.push(issueAt(findings, path, complaint, at));
}

/** Records something accepted and ignored. */
export function warn(findings: Findings, path: Path, complaint: Complaint, at: At = "value"): void {
  if (findings.warnings.length >= MAX_ISSUES) return;
  findings.warnings.push(formatIssue(issueAt(findings, path, complaint, at)));
}

function issueAt(
  { source }: Findings,
  path: Path,
  { message, expected, hint, near }: Complaint,
  at: At,
): Issue {
  const close = hint || !near ? undefined : nearest(...near);
  const advice = hint ?? (close && `did you mean '${close}'?`);
  return {
    message,
    ...(source.file && { file: source.file }),
    ...(typeof at === "string"
      ? source.place(path, at)
      : source.placeInText(path, at.line, at.column)),
    ...whereIs(source, path),
    ...(expected && { expected }),
    ...(advice && { hint: advice }),
  };
}

/** The step a path is in, and the field as its author would name it: `tool[1].spec.policy`. */
export function whereIs(source: Source, path: Path): { step?: string; field?: string } {
  let field = path;
  let step: string | undefined;
  if (path[0] === "workflow" && typeof path[1] === "number") {
    const steps = (source.value as { workflow: unknown[] }).workflow;
    const raw = steps[path[1]];
    if (isObject(raw) && typeof raw["step"] === "string") {
      step = raw["step"];
      field = path.slice(2);
    }
  }
  const text = fieldText(field);
  return { ...(step !== undefined && { step }), ...(text && { field: text }) };
}

/** `["tool", 1, "spec"]` → `tool[1].spec`. */
export function fieldText(path: Path): string {
  return path
    .map((part, index) => {
      if (typeof part === "number") return `[${part}]`;
      return index === 0 ? part : `.${part}`;
    })
    .join("");
}

/** The good fields of a map; null and absent are the same. */
export type Given<T> = { [K in keyof T]?: NonNullable<T[K]> };

/**
 * Reads the keys of a map that `schema` names, each on its own, so one bad field hides no other.
 * Bad fields are recorded and absent from the result. Keys that `schema` does not name are refused
 * when `words` knows them as old spellings, else they are ignored with a warning (`extra: "keep"`:
 * without one).
 */
export function readMap<S extends z.ZodObject>(
  findings: Findings,
  path: Path,
  schema: S,
  raw: unknown,
  options: { words?: WordPlace; extra?: "warn" | "keep" } = {},
): Given<z.output<S>> {
  if (raw === undefined || raw === null) return {};
  if (!isObject(raw)) {
    refuse(findings, path, {
      message: `must be a map, is ${describeValue(raw)}`,
      expected: "a map",
    });
    return {};
  }
  const result: Record<string, unknown> = {};
  const known = Object.keys(schema.shape);
  const unknown = Object.keys(raw).filter(key => !Object.hasOwn(schema.shape, key));
  for (const key of known) {
    const field = schema.shape[key] as z.ZodType;
    const parsed = field.safeParse(raw[key]);
    if (!parsed.success) {
      const missing = (raw[key] ?? null) === null && !field.safeParse(undefined).success;
      if (missing) refuseMissing(findings, path, key, unknown);
      else refuseField(findings, [...path, key], parsed.error.issues, raw[key]);
    } else if (parsed.data !== undefined && parsed.data !== null) {
      result[key] = parsed.data;
    }
  }
  for (const key of unknown) readUnknownKey(findings, path, key, known, options);
  return result as Given<z.output<S>>;
}

function refuseMissing(findings: Findings, path: Path, key: string, unknown: string[]): void {
  const typo = nearest(key, unknown);
  const hint = typo && `rename '${typo}' to '${key}'`;
  const where = [...path, key];
  const message = key === "tool" ? TOOL_IS_REQUIRED : `'${key}' is required`;
  const advice = key === "tool" ? [hint, "a step that does nothing: use kind: noop"] : [hint];
  refuse(findings, where, { message, hint: advice.filter(Boolean).join("; ") || undefined });
}

function refuseField(
  findings: Findings,
  path: Path,
  issues: readonly z.core.$ZodIssue[],
  value: unknown,
): void {
  for (const issue of issues) {
    const inside = issue.path as (string | number)[];
    const found = inside.reduce<unknown>(
      (at, part) => (at as Record<string, unknown>)?.[part],
      value,
    );
    refuse(findings, [...path, ...inside], explain(issue, found));
  }
}

function readUnknownKey(
  findings: Findings,
  path: Path,
  key: string,
  known: string[],
  { words, extra = "warn" }: { words?: WordPlace; extra?: "warn" | "keep" },
): void {
  const place = [...path, key];
  const old = words && OLD_WORDS[words];
  if (old && Object.hasOwn(old, key)) {
    refuse(
      findings,
      place,
      { message: `'${key}' is not part of the language`, hint: old[key] },
      "key",
    );
  } else if (extra === "warn") {
    warn(
      findings,
      place,
      { message: `unknown key '${key}' is ignored`, near: [key, known] },
      "key",
    );
  }
}
