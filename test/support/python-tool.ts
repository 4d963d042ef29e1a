// The python tool in a broker of its own, and code for it.
import { ServiceBroker } from "moleculer";
import { callTool } from "../../mixins/tool.ts";
import type { ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import type { PoolStats } from "../../services/tool.python/pool.ts";
import {
  pythonTool,
  type PythonToolOptions,
} from "../../services/tool.python/tool.python.service.ts";
import { TOOL_COMMAND } from "./tool-command.ts";

export interface PythonBench {
  /** One task: its fields, and what it is given. */
  run(
    fields: string | Record<string, unknown>,
    given?: Partial<ToolRequest>,
    signal?: AbortSignal,
  ): Promise<ToolEnvelope>;
  stats(): Promise<PoolStats>;
  stop(): Promise<void>;
}

export async function pythonBench(options: Partial<PythonToolOptions> = {}): Promise<PythonBench> {
  const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
  broker.createService(pythonTool({ processes: 2, ...options }));
  await broker.start();
  return {
    run(fields, given = {}, signal) {
      const config = typeof fields === "string" ? { code: fields } : fields;
      return callTool(
        broker,
        "python",
        { config, input: {}, command: TOOL_COMMAND, ...given },
        signal,
      );
    },
    stats: () => broker.call("tool.python.stats"),
    stop: () => broker.stop(),
  };
}
