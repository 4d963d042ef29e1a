// The proof of an execution: what its log shows of every rule, recomputed by the database.
import type { Runtime } from "../../mixins/runtime.ts";
import { verifyExecution, type Finding } from "../../mixins/postgres/verify.ts";
import { readExecutions } from "../../mixins/postgres/execution.ts";
import { unknownExecution } from "./read.ts";

/** The rules, in the order in which a reader asks for them. */
const RULES = [
  ...["versions", "commands", "names", "fence", "cancel", "end"],
  ...["loops", "items", "counts", "fanin", "digest", "terminal", "row", "wakers"],
];

export interface Check {
  rule: string;
  ok: boolean;
  /** Of a rule that holds: what was looked at. */
  detail?: string;
  faults: Pick<Finding, "subject" | "detail">[];
}

export interface Verification {
  execution_id: string;
  path: string | null;
  status: string | null;
  ok: boolean;
  checks: Check[];
  duration_ms: number;
}

/** Throws Rejected 404 for an id that nothing is known of, Unavailable when it takes too long. */
export async function verify(runtime: Runtime, executionId: string): Promise<Verification> {
  const startedAt = performance.now();
  const found = await verifyExecution(runtime.database, executionId);
  if (!found) throw unknownExecution(executionId);
  const [row] = await readExecutions(runtime.database, [executionId]);
  const checks = [...Map.groupBy(found, finding => finding.rule)].map(checkOf).sort(inOrder);
  return {
    execution_id: executionId,
    path: row?.path ?? null,
    status: row?.status ?? null,
    ok: checks.every(check => check.ok),
    checks,
    duration_ms: Math.round(performance.now() - startedAt),
  };
}

function checkOf([rule, findings]: [string, Finding[]]): Check {
  const broken = findings.filter(finding => !finding.ok);
  const faults = broken.map(({ subject, detail }) => ({ subject, detail }));
  if (broken.length > 0) return { rule, ok: false, faults };
  return { rule, ok: true, detail: findings[0]?.detail ?? "", faults };
}

function inOrder(one: Check, other: Check): number {
  return RULES.indexOf(one.rule) - RULES.indexOf(other.rule);
}
