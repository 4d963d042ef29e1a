/** The artifact tool: a result that is kept elsewhere, loaded again by its reference. */
import type { ServiceSchema } from "moleculer";
import { REFERENCE_PREFIX } from "../../mixins/result-store/index.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { configFailure, toolAction, ToolFailure } from "../../mixins/tool.ts";
import { errorType } from "../../schemas/errors.ts";
import { isObject, type Json } from "../../schemas/json.ts";
import type { ToolRequest } from "../../schemas/tool.ts";

/** Loads of this process at once: each may be large. */
const LIMITS = { tool: "artifact", concurrency: 8, max_queue_size: 1_000 } as const;
/** Results of a loop lie in the log, not in a tier. */
const IN_LOG = /^noetl:\/\/execution\/[0-9]+\/loop\/[0-9]+\/results(?:\/item\/[0-9]+)?$/;

/**
 * The service `tool.artifact` over a process's runtime: playbook-dsl §3.12. Action `run` with
 * `action: get` and `result_ref` (or `uri`) as a field or an input: a step's `_ref` is answered
 * with the whole result; a value that is no reference is the result itself.
 */
export default function artifactTool(
  runtime: Pick<Runtime, "results" | "values"> & Partial<Pick<Runtime, "limiter">>,
): ServiceSchema {
  const limits = { ...LIMITS, limiter: runtime.limiter };
  return {
    name: "tool.artifact",
    actions: {
      run: toolAction(limits, async request => {
        const data = await load(runtime, referenceOf(request));
        return { status: "ok", data, error: null };
      }),
    },
  };
}

function referenceOf({ config, input }: ToolRequest): Json {
  const action = config["action"] ?? "get";
  if (action !== "get") {
    throw configFailure(`action: '${String(action)}' is not supported`, "get");
  }
  const fields = [input["result_ref"], input["uri"], config["result_ref"], config["uri"]];
  const given = fields.find(field => field !== undefined && field !== null && field !== "");
  if (given === undefined) {
    throw configFailure("result_ref: it is empty", "the _ref of a step whose result is kept");
  }
  return given as Json;
}

async function load({ results, values }: Pick<Runtime, "results" | "values">, given: Json) {
  const ref = isObject(given) && typeof given["ref"] === "string" ? given["ref"] : given;
  if (typeof ref !== "string" || !ref.startsWith("noetl://")) return given;
  if (!ref.startsWith(REFERENCE_PREFIX)) {
    throw configFailure(`result_ref: '${ref}' names no result`, `${REFERENCE_PREFIX}…`);
  }
  try {
    if (IN_LOG.test(ref)) return await values.load({ ref, bytes: 0, tier: "log" });
    return await results.find(ref);
  } catch (error) {
    if (errorType(error) !== "REJECTED") throw error;
    const { message } = error as Error;
    const kind = "missing_reference";
    throw new ToolFailure({ kind, retryable: false, code: "LOST", message });
  }
}
