/** YAML text → `Playbook`; every issue with file, line, column, step and field. */
import { formatIssue, rejectIssues } from "../errors.ts";
import type { Issue } from "../errors.ts";
import { isObject } from "../json.ts";
import { checkTemplates } from "./check-templates.ts";
import { durationMs } from "./duration.ts";
import { describeValue } from "./explain.ts";
import { readMap, refuse, TOOL_IS_REQUIRED, warn } from "./findings.ts";
import {
  executorGrammar,
  executorSpecGrammar,
  fanoutGrammar,
  keychainGrammar,
  metadataGrammar,
  rootGrammar,
} from "./grammar.ts";
import type { Playbook, Step } from "./model.ts";
import { refuseUnknownStep } from "./read-router.ts";
import { readSteps } from "./read-steps.ts";
import { readWorkbook } from "./read-workbook.ts";
import { originKey } from "./reading.ts";
import type { Reading } from "./reading.ts";
import { readSource } from "./source.ts";
import type { Path, Place, Source } from "./source.ts";
import type { Spot, Whereabouts } from "./spot.ts";

export interface ParseOptions {
  /** Named in every issue and warning. */
  file?: string;
}

export interface ReadPlaybook extends Whereabouts {
  playbook: Playbook;
  place(spot: Spot): Place;
}

/**
 * YAML text → normalised playbook. Throws Rejected: 422 with every issue found in `data.issues`
 * (at most MAX_ISSUES). What this build cannot run is parsed all the same: see `refuseUnrunnable`.
 */
export function parsePlaybook(text: string, options: ParseOptions = {}): Playbook {
  return readPlaybook(text, options).playbook;
}

/** As parsePlaybook, and keeps the places for checks that come after parsing. */
export function readPlaybook(text: string, { file }: ParseOptions = {}): ReadPlaybook {
  const source = readSource(text, file);
  const reading = startReading(source);
  const playbook = readRoot(reading);
  if (!playbook || reading.issues.length > 0) {
    throw rejectIssues(reading.issues.toSorted(byPlace), "the playbook is not valid");
  }
  return {
    playbook,
    file,
    place({ step, task, field }) {
      const origin = step === undefined ? [] : (reading.origins.get(originKey(step, task)) ?? []);
      return source.place([...origin, ...(field?.split(".") ?? [])]);
    },
  };
}

function startReading(source: Source): Reading {
  return {
    source,
    issues: [...source.issues],
    warnings: source.warnings.map(formatIssue),
    stepNames: stepNamesOf(source.value),
    workbook: new Map(),
    loopMode: "local",
    fanout: {},
    origins: new Map(),
  };
}

function stepNamesOf(root: unknown): Set<string> {
  const workflow = isObject(root) && Array.isArray(root["workflow"]) ? root["workflow"] : [];
  const names = workflow.filter(isObject).map(step => step["step"]);
  return new Set(names.filter(name => typeof name === "string"));
}

/** By place, but steps without a tool first: their message says it before any symptom elsewhere. */
function byPlace(a: Issue, b: Issue): number {
  const rank = (issue: Issue) => (issue.message === TOOL_IS_REQUIRED ? 0 : 1);
  return rank(a) - rank(b) || (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0);
}

function readRoot(reading: Reading): Playbook | undefined {
  const { value } = reading.source;
  if (!isObject(value)) {
    const message = `a playbook must be a map, is ${describeValue(value)}`;
    refuse(reading, [], { message, expected: "apiVersion, kind, metadata, workflow" });
    return undefined;
  }
  const root = readMap(reading, [], rootGrammar, value, { words: "root" });
  const { metadata } = root;
  const about = readMap(reading, ["metadata"], metadataGrammar, metadata, { extra: "keep" });
  const executor = readExecutor(reading, root.executor);
  checkTemplates(reading, ["workload"], root.workload);
  readKeychain(reading, root.keychain ?? []);
  readWorkbook(reading, root.workbook ?? []);
  const steps = readSteps(reading, root.workflow ?? []);
  const name = about.name ?? "";
  const { description } = about;
  return {
    name,
    path: about.path ?? name,
    ...(description !== undefined && { description: String(description) }),
    entry: executor.entry ?? entryOf(steps),
    ...(executor.finalStep !== undefined && { finalStep: executor.finalStep }),
    noNextIsError: executor.noNextIsError,
    ...(executor.timeoutMs !== undefined && { timeoutMs: executor.timeoutMs }),
    workload: root.workload ?? {},
    keychain: root.keychain ?? [],
    steps,
    warnings: reading.warnings,
  };
}

function entryOf(steps: Record<string, Step>): string {
  return Object.hasOwn(steps, "start") ? "start" : (Object.keys(steps)[0] ?? "");
}

function readExecutor(reading: Reading, raw: Record<string, unknown> | undefined) {
  const { spec: rawSpec } = readMap(reading, ["executor"], executorGrammar, raw);
  const path: Path = ["executor", "spec"];
  const spec = readMap(reading, path, executorSpecGrammar, rawSpec);
  readMap(reading, [...path, "fanout"], fanoutGrammar, spec.fanout);
  checkTemplates(reading, [...path, "fanout"], spec.fanout);
  const entry = spec.entry_step;
  const finalStep = spec.final_step;
  if (entry) refuseUnknownStep(reading, [...path, "entry_step"], entry, "the entry step is");
  if (finalStep)
    refuseUnknownStep(reading, [...path, "final_step"], finalStep, "the final step is");
  if (entry && entry === finalStep) {
    const message = "the entry step cannot be the final step too";
    refuse(reading, [...path, "final_step"], { message });
  }
  if (spec.policy) {
    const message = "'policy' of the executor has no effect";
    warn(
      reading,
      [...path, "policy"],
      { message, hint: "write policies on steps and tools" },
      "key",
    );
  }
  reading.loopMode = spec.loop_mode ?? "local";
  reading.fanout = spec.fanout ?? {};
  const timeoutMs = durationMs(spec.timeout);
  return { entry, finalStep, noNextIsError: spec.no_next_is_error ?? false, timeoutMs };
}

/** Entries are checked for a name and good templates; the rest is for their provider to say. */
function readKeychain(reading: Reading, entries: Record<string, unknown>[]): void {
  const names = new Set<string>();
  entries.forEach((entry, index) => {
    const path = ["keychain", index];
    const { name } = readMap(reading, path, keychainGrammar, entry, { extra: "keep" });
    checkTemplates(reading, path, entry);
    if (name === undefined) return;
    if (names.has(name)) {
      warn(reading, [...path, "name"], { message: `keychain entry '${name}' is written twice` });
    }
    names.add(name);
  });
}
