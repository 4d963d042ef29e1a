/** Which services make a role, and how they are given their settings. */
import type { ServiceBroker, ServiceSchema } from "moleculer";
import type { Runtime } from "../mixins/runtime.ts";
import apiService from "../services/api/api.service.ts";
import catalogService from "../services/catalog/catalog.service.ts";
import commandsService from "../services/commands/commands.service.ts";
import { credentials } from "../services/credentials/credentials.service.ts";
import executionsService from "../services/executions/executions.service.ts";
import fanoutService from "../services/fanout/fanout.service.ts";
import keysService from "../services/keys/keys.service.ts";
import limitsService from "../services/limits/limits.service.ts";
import loopsService from "../services/loops/loops.service.ts";
import projectionService from "../services/projection/projection.service.ts";
import reaperService from "../services/reaper/reaper.service.ts";
import startsService from "../services/starts/starts.service.ts";
import { actionTool } from "../services/tool.action/tool.action.service.ts";
import artifactTool from "../services/tool.artifact/tool.artifact.service.ts";
import { httpTool } from "../services/tool.http/tool.http.service.ts";
import { noopTool } from "../services/tool.noop/tool.noop.service.ts";
import playbookTool from "../services/tool.playbook/tool.playbook.service.ts";
import { pythonTool } from "../services/tool.python/tool.python.service.ts";
import { postgresTool } from "../services/tool.postgres/tool.postgres.service.ts";
import workerService from "../services/worker/worker.service.ts";
import workersService from "../services/workers/workers.service.ts";

/**
 * `server` decides and keeps house, `worker` runs commands with the tools, `api` is the HTTP door.
 * `client` answers questions and takes requests, without touching what others left unfinished.
 */
export type Role = "server" | "client" | "worker" | "api";

export interface ServicePlan {
  schemas: ServiceSchema[];
  /** Lets running work finish; resolves at once where there is no worker. */
  drain(broker: ServiceBroker): Promise<void>;
}

export function createServices(
  runtime: Runtime,
  roles: readonly Role[],
  scope: "all" | "own",
): ServicePlan {
  const decides = roles.includes("server") || roles.includes("client");
  const works = roles.includes("worker");
  const schemas = [
    ...(decides || works ? [credentialsOf(runtime), limitsService(runtime)] : []),
    ...(decides
      ? [
          catalogService(runtime),
          executionsService(runtime),
          loopsService(runtime),
          fanoutService(runtime),
          commandsService(runtime),
          keysService(runtime),
          workersService(runtime),
        ]
      : []),
    ...(roles.includes("server")
      ? [reaperService(runtime, { scope }), projectionService(runtime)]
      : []),
    // Who decides without keeping the rows tells the one that does.
    ...(roles.includes("client") && !roles.includes("server")
      ? [projectionService(runtime, { keeps: false })]
      : []),
    // Who serves one run must not take the starts of others: it leaves when that run has ended.
    ...(roles.includes("server") && scope === "all" ? [startsService(runtime)] : []),
    ...(works ? [...toolsOf(runtime), workerService(runtime)] : []),
    ...(roles.includes("api") ? [apiService(runtime)] : []),
  ];
  async function drain(broker: ServiceBroker): Promise<void> {
    // No limit here: the worker gives unfinished work back after NOETL_DRAIN_SECONDS.
    if (works) await broker.call("worker.drain", {}, { timeout: 0 });
  }
  return { schemas, drain };
}

function credentialsOf({ settings, database }: Runtime): ServiceSchema {
  const { encryptionKey, file } = settings.credentials;
  return credentials({ encryptionKey, file, variables: settings.credentialVariables, database });
}

function toolsOf(runtime: Runtime): ServiceSchema[] {
  const { settings, limiter } = runtime;
  return [
    noopTool({ limiter }),
    httpTool({ ...settings.httpTool, limiter }),
    postgresTool({ ...settings.postgresTool, limiter }),
    playbookTool(runtime),
    artifactTool(runtime),
    actionTool({ ...settings.actionTool, limiter }),
    pythonTool({ ...settings.pythonTool, environment: settings.pythonEnvironment, limiter }),
  ];
}
