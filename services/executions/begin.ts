// The first facts of a run: its workload, who asked for it, and the step it enters.
import type { TurnContext } from "../../schemas/decider.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { NewEvent } from "../../schemas/events.ts";
import type { PlaybookPin, StartCaller } from "../../schemas/frozen-scope.ts";
import { isObject, type JsonObject } from "../../schemas/json.ts";
import { keepRoots } from "../../schemas/playbook/kept-roots.ts";
import type { Playbook } from "../../schemas/playbook/model.ts";
import { renderValue } from "../../schemas/playbook/render.ts";
import { createScope } from "../../schemas/playbook/scope.ts";
import { needPlaybook } from "../../schemas/playbook/stored-result.ts";
import { TemplateError } from "../../schemas/playbook/template-error.ts";
import { enterAll } from "./enter.ts";
import { evolve } from "./evolve.ts";
import { pauseRequest } from "./paused.ts";
import type { Running } from "./state.ts";

export interface ExecutionStart {
  type: "start";
  execution_id: string;
  playbook: PlaybookPin;
  payload: JsonObject;
  parent_execution_id?: string;
  start_key?: string;
  caller?: StartCaller;
  /** The limit of the whole run; the playbook's own when absent. */
  timeout_ms?: number;
  /** The pause of its parent, which it begins in. */
  paused_by?: string;
}

/** The facts of a start: with them the execution exists and its first command is issued. */
export function start(input: ExecutionStart, context: TurnContext): NewEvent[] {
  const playbook = needPlaybook(input.playbook, context);
  const { path, version, hash } = input.playbook;
  const { meta: carried, ...asked } = input.caller ?? {};
  const timeout_ms = input.timeout_ms ?? playbook.timeoutMs;
  const initialized: NewEvent = {
    event_type: "playbook.initialized",
    node_name: playbook.entry,
    meta: {
      path,
      playbook_version: version,
      hash,
      generation: 0,
      ...(input.parent_execution_id && { parent_execution_id: input.parent_execution_id }),
      ...(timeout_ms !== undefined && { timeout_ms }),
      ...(input.start_key && { start_key: input.start_key }),
      ...asked,
    },
    context: {
      workload: keepRoots(workloadOf(input, playbook), `${input.execution_id}/workload`, context),
      execution_id: input.execution_id,
      ...(carried && { meta: carried }),
      // A payload's own `ctx` starts the variables.
      ...(isObject(input.payload["ctx"]) && {
        ctx: keepRoots(input.payload["ctx"], `${input.execution_id}/ctx/start`, context),
      }),
    },
  };
  const state = evolve({ status: "none" }, initialized, context.now) as Running;
  if (input.paused_by === undefined) return [initialized, ...enterAll(state, playbook, context)];
  return [initialized, pauseRequest(1, { by: input.paused_by })];
}

/**
 * Defaults rendered, then the payload over them, key by key: the payload is data and never
 * rendered.
 */
function workloadOf(input: ExecutionStart, playbook: Playbook): JsonObject {
  const parts = {
    execution: { id: input.execution_id, path: input.playbook.path },
    workload: { ...(playbook.workload as JsonObject), ...input.payload },
    ctx: {},
    steps: {},
  };
  try {
    const scope = createScope(parts);
    const defaults = renderValue(playbook.workload, scope, "typed") as JsonObject;
    return { ...defaults, ...input.payload };
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new Rejected(`the workload of '${playbook.path}' has no value: ${error.message}`, 422, {
      reason: "workload",
    });
  }
}
