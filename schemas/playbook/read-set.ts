/** `set` maps: which variables are written, and that their names are names. */
import { refuse } from "./findings.ts";
import type { Findings } from "./findings.ts";
import { checkTemplates } from "./check-templates.ts";
import type { Path } from "./source.ts";

const SCOPES = ["ctx", "iter", "step"];

/** A `set` map as written (`ctx.x`, `iter.x`, `step.x` or bare), its keys and templates checked. */
export function readSet(
  findings: Findings,
  path: Path,
  raw: Record<string, unknown> | undefined,
): Record<string, unknown> {
  if (!raw) return {};
  for (const key of Object.keys(raw)) checkKey(findings, [...path, key], key);
  checkTemplates(findings, path, raw);
  return raw;
}

function checkKey(findings: Findings, path: Path, key: string): void {
  const parts = key.split(".");
  const expected = "ctx.name, iter.name, step.name or a bare name";
  if (parts.some(part => part.trim() === "" || part === "__proto__")) {
    refuse(findings, path, { message: `'${key}' is not a name to set`, expected }, "key");
  } else if (parts.length === 1 && SCOPES.includes(key)) {
    const hint = `name what to set in it: ${key}.name`;
    refuse(findings, path, { message: `'${key}' itself cannot be set`, expected, hint }, "key");
  } else if (parts[0] === "workload") {
    const hint = `use ctx.${parts.slice(1).join(".") || "name"}, which hides the workload's`;
    refuse(findings, path, { message: "the workload is read-only", expected, hint }, "key");
  }
}
