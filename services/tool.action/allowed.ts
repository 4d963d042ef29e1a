/** Which actions a playbook may call: playbook authors are users of the runtime, not operators. */
import { Utils } from "moleculer";

/** What belongs to the runtime, and why a playbook may not call it. The first match counts. */
const OURS: readonly (readonly [pattern: string, reason: string])[] = [
  ["$**", "it shows the inside of nodes"],
  ["tool.**", "write the tool itself: kind: <kind>"],
  ["credentials.**", "secrets are for tools: name an alias in auth"],
  ["keys.**", "keys are for operators"],
  ["limits.**", "limits are for operators"],
  ["executions.**", "only asking for executions and about them is for playbooks"],
  ["catalog.**", "only reading the catalog is for playbooks"],
  ["loops.**", "actors of the runtime speak here"],
  ["fanout.**", "actors of the runtime speak here"],
  ["commands.**", "workers speak here"],
  ["worker.**", "workers speak here"],
  ["workers.**", "what runs where is for operators"],
  ["reaper.**", "it is the runtime's own housekeeping"],
  ["projection.**", "it is the runtime's own housekeeping"],
  ["starts.**", "it is the runtime's own housekeeping"],
  ["api.**", "it is the runtime's own door"],
];

/** Of ours, what a playbook may call like any other action. */
const OPEN: ReadonlySet<string> = new Set([
  ...["start", "get", "status", "list", "events", "result", "tail", "wait", "cancel"].map(
    name => `executions.${name}`,
  ),
  ...["get", "list"].map(name => `catalog.${name}`),
]);

/**
 * Why this action may not be called, or undefined when it may. `allow` are patterns in Moleculer's
 * notation (`users.*`, `v2.users.**`); an empty list allows everything that is not ours.
 */
export function refusalOf(action: string, allow: readonly string[]): string | undefined {
  const ours = OURS.find(([pattern]) => Utils.match(action, pattern));
  if (ours && !OPEN.has(action)) return ours[1];
  if (allow.length === 0 || allow.some(pattern => Utils.match(action, pattern))) return undefined;
  return `NOETL_ACTION_ALLOW allows ${allow.join(", ")}`;
}
