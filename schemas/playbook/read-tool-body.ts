/** The fields of one tool, wherever it is written: in a step, in a pipeline, in the workbook. */
import { isObject } from "../json.ts";
import { readTaskLimit, TASK_LIMIT_EXPECTED } from "../rate-limit.ts";
import { checkTemplates } from "./check-templates.ts";
import { readMap, refuse, warn } from "./findings.ts";
import type { Findings } from "./findings.ts";
import { toolGrammar, toolSpecGrammar } from "./grammar.ts";
import { readRules } from "./read-rules.ts";
import { readSet } from "./read-set.ts";
import type { Pipeline, TaskBody } from "./reading.ts";
import { missingField } from "./required-fields.ts";
import { hasTemplate } from "./template.ts";
import type { Path } from "./source.ts";

/** What a tool and its `spec` may both say; the tool's own word wins. */
interface Level {
  auth?: TaskBody["auth"];
  input?: Record<string, unknown>;
  set?: Record<string, unknown>;
  output?: Record<string, unknown>;
  config: Record<string, unknown>;
}

/**
 * Reads one tool. `spec.*` except `policy` is lifted into the tool. Without `pipeline` (a workbook
 * task) jumps are checked where the task is called.
 */
export function readToolBody(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown>,
  pipeline?: Pipeline,
): TaskBody {
  const fields = readMap(findings, path, toolGrammar, raw, { words: "tool", extra: "keep" });
  const specPath = [...path, "spec"];
  const spec = fields.spec ?? {};
  const inSpec = readMap(findings, specPath, toolSpecGrammar, spec, {
    words: "tool",
    extra: "keep",
  });
  const own = readLevel(findings, path, raw, fields);
  const lifted = readLevel(findings, specPath, spec, inSpec);
  const auth = own.auth ?? lifted.auth;
  const output = own.output ?? lifted.output;
  const config = { ...lifted.config, ...own.config };
  if (fields.kind) refuseMissingField(findings, path, fields.kind, config);
  const isOwn = Object.hasOwn(own.config, "rate_limit");
  refuseRateLimit(findings, [...(isOwn ? path : specPath), "rate_limit"], config["rate_limit"]);
  return {
    kind: fields.kind ?? "noop",
    ...(auth !== undefined && { auth }),
    input: own.input ?? lifted.input ?? {},
    config,
    rules: readRules(findings, [...specPath, "policy"], inSpec.policy, pipeline),
    set: own.set ?? lifted.set ?? {},
    ...(output !== undefined && { output }),
  };
}

type Fields = Partial<Record<"auth" | "credential" | "input" | "args" | "set" | "output", unknown>>;

function readLevel(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown>,
  fields: Fields,
): Level {
  refuseBoth(findings, path, fields, "auth", "credential");
  refuseBoth(findings, path, fields, "input", "args");
  const config = Object.fromEntries(
    Object.entries(raw).filter(([key]) => !Object.hasOwn(toolSpecGrammar.shape, key)),
  );
  delete config["kind"];
  delete config["spec"];
  if (Object.hasOwn(config, "retry")) {
    const message = "'retry' on a tool is ignored";
    const hint = "use spec.policy.rules with do: retry";
    warn(findings, [...path, "retry"], { message, hint }, "key");
    delete config["retry"];
  }
  const level = {
    auth: (fields.auth ?? fields.credential) as Level["auth"],
    input: (fields.input ?? fields.args) as Level["input"],
    output: fields.output as Level["output"],
  };
  checkFieldTemplates(findings, path, { ...fields, ...config });
  const set = isObject(fields.set) ? readSet(findings, [...path, "set"], fields.set) : undefined;
  return { ...level, set, config };
}

/** Program text is never a template; `set` and `spec` are checked by their own readers. */
function checkFieldTemplates(findings: Findings, path: Path, fields: object): void {
  for (const [key, value] of Object.entries(fields)) {
    if (["code", "code_b64", "set", "spec", "policy", "kind"].includes(key)) continue;
    const isCode = (at: Path) =>
      key === "script" && at.slice(path.length + 1).join(".") === "source.code";
    checkTemplates(findings, [...path, key], value, isCode);
  }
}

function refuseBoth(
  findings: Findings,
  path: Path,
  fields: Fields,
  one: string,
  other: string,
): void {
  const given = fields as Record<string, unknown>;
  if (given[one] === undefined || given[other] === undefined) return;
  const message = `'${one}' and '${other}' mean the same and are both given`;
  refuse(findings, [...path, other], { message, hint: `keep '${one}'` }, "key");
}

function refuseMissingField(
  findings: Findings,
  path: Path,
  kind: TaskBody["kind"],
  config: Record<string, unknown>,
): void {
  const missing = missingField(kind, config);
  if (!missing) return;
  const given = missing.find(field => Object.hasOwn(config, field));
  const place = [...path, given ?? missing[0]!];
  const message = `'${given ?? missing[0]}' is required by tool kind ${kind}`;
  const hint = strayHint(findings, path, missing);
  const is = given ? `${message}, is empty` : message;
  refuse(findings, place, { message: is, expected: missing.join(" | "), hint });
}

/** A template says it only when the task runs. */
function refuseRateLimit(findings: Findings, path: Path, value: unknown): void {
  const values = isObject(value) ? Object.values(value) : [value];
  const isTemplate = values.some(one => typeof one === "string" && hasTemplate(one));
  if (value === undefined || value === null || isTemplate) return;
  const limit = readTaskLimit(value);
  if (typeof limit !== "string") return;
  refuse(findings, path, {
    message: `'rate_limit' cannot be used: ${limit}`,
    expected: TASK_LIMIT_EXPECTED,
  });
}

/** The field may be there, one indentation too far left: on the step. */
function strayHint(findings: Findings, path: Path, missing: readonly string[]): string | undefined {
  const root = findings.source.value as { workflow?: unknown[] };
  const step = path[0] === "workflow" ? root.workflow?.[path[1] as number] : undefined;
  const stray = isObject(step) && missing.find(field => Object.hasOwn(step, field));
  return stray ? `'${stray}' is written on the step: indent it under tool` : undefined;
}
