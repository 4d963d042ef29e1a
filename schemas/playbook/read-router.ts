/** The `next` of a step: the canonical router and its short forms. */
import { isObject } from "../json.ts";
import { checkGuard } from "./check-templates.ts";
import { describeValue } from "./explain.ts";
import { readMap, refuse, warn } from "./findings.ts";
import { arcGrammar, routerGrammar, routerSpecGrammar } from "./grammar.ts";
import type { Arc, Router } from "./model.ts";
import type { Reading } from "./reading.ts";
import { readSet } from "./read-set.ts";
import type { Path } from "./source.ts";

/**
 * `next: end`, `next: [a, b]`, `next: [{step, when, set}]` or `next: {spec, arcs}`. A list of bare
 * names goes to all of them (inclusive); every other list takes the first arc that is true.
 */
export function readRouter(reading: Reading, path: Path, raw: unknown): Router {
  const router: Router = { mode: "exclusive", onNoMatch: "complete", arcs: [] };
  if (raw === undefined || raw === null) return router;
  if (typeof raw === "string") return { ...router, arcs: readArcs(reading, path, [raw], true) };
  if (Array.isArray(raw)) {
    const names = raw.length > 1 && raw.every(item => typeof item === "string");
    const arcs = readArcs(reading, path, raw);
    return finish(reading, path, { ...router, mode: names ? "inclusive" : "exclusive", arcs });
  }
  if (!isObject(raw)) {
    const message = `must be a router, is ${describeValue(raw)}`;
    refuse(reading, path, { message, expected: "a step name, a list, or {spec, arcs}" });
    return router;
  }
  const fields = readMap(reading, path, routerGrammar, raw, { words: "next" });
  const specPath = [...path, "spec"];
  const spec = readMap(reading, specPath, routerSpecGrammar, fields.spec);
  const arcs = readArcs(reading, [...path, "arcs"], fields.arcs ?? []);
  return finish(reading, [...path, "arcs"], {
    mode: spec.mode ?? "exclusive",
    onNoMatch: spec.on_no_match ?? "complete",
    arcs,
  });
}

function finish(reading: Reading, path: Path, router: Router): Router {
  if (router.mode !== "exclusive") return router;
  const first = router.arcs.findIndex(arc => arc.when === undefined || arc.when === true);
  if (first >= 0 && first < router.arcs.length - 1) {
    const message = `arcs after the one to '${router.arcs[first]!.to}' are never taken`;
    const hint = "it has no condition and mode is exclusive; use mode: inclusive for all";
    warn(reading, [...path, first + 1], { message, hint });
  }
  return router;
}

function readArcs(reading: Reading, path: Path, items: unknown[], single = false): Arc[] {
  return items
    .map((item, index) => readArc(reading, single ? path : [...path, index], item))
    .filter(arc => arc !== undefined);
}

function readArc(reading: Reading, path: Path, item: unknown): Arc | undefined {
  if (typeof item === "string") {
    checkTarget(reading, path, item);
    return { to: item, set: {} };
  }
  if (!isObject(item)) {
    const message = `an arc must be a map, is ${describeValue(item)}`;
    refuse(reading, path, { message, expected: "{step, when, set}" });
    return undefined;
  }
  const arc = readMap(reading, path, arcGrammar, item, { words: "arc" });
  checkGuard(reading, [...path, "when"], arc.when);
  if (arc.step !== undefined) checkTarget(reading, [...path, "step"], arc.step);
  return {
    to: arc.step ?? "",
    ...(arc.when !== undefined && { when: arc.when }),
    set: readSet(reading, [...path, "set"], arc.set),
  };
}

function checkTarget(reading: Reading, path: Path, to: string): void {
  refuseUnknownStep(reading, path, to, "the arc leads to");
}

/** Records that no step has this name; `what` begins the sentence. */
export function refuseUnknownStep(reading: Reading, path: Path, name: string, what: string): void {
  if (reading.stepNames.has(name)) return;
  refuse(reading, path, {
    message: `${what} '${name}', which is no step`,
    expected: "the name of a step",
    near: [name, reading.stepNames],
  });
}
