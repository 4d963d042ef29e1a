/** The HTTP API as a table: which action answers which request, and with what parameters. */
import type { z } from "zod";
import type { ApiRole } from "./access.ts";
import {
  commandsClaim,
  commandsGet,
  commandsReport,
  commandsReportOne,
  commandsValue,
  commandsWaiting,
} from "./command-requests.ts";
import { limitsClear, limitsSet } from "./limit-requests.ts";
import {
  catalogGet,
  catalogList,
  catalogRegister,
  credentialsRegister,
  executionId,
  executionsCancel,
  executionsDeadLetters,
  executionsEvents,
  executionsFailures,
  executionsList,
  executionsPause,
  executionsRedrive,
  executionsResult,
  executionsResume,
  executionsStart,
  executionsStream,
  executionsTail,
  executionsWait,
  nothing,
  workersList,
} from "./requests.ts";
import { keysCreate, keysRevoke } from "./key-requests.ts";
import {
  asksForEvents,
  bodyObject,
  pathAndBody,
  pathAndQuery,
  queryOf,
  registerParams,
  startParams,
  type ApiRequest,
} from "./route-params.ts";

export interface ApiRoute {
  method: "GET" | "POST";
  /** In the notation of path-to-regexp: `:name` is one segment, `*name` is the rest. */
  path: string;
  action: (request: ApiRequest) => string;
  /** Actions that a client reaches here; the CLI finds its way by them. */
  serves: readonly string[];
  params: (request: ApiRequest) => Record<string, unknown>;
  status: number;
  /** Answered by Server-Sent Events for as long as there is something to tell, not by one call. */
  live?: true;
  /** The roles that may call it; `admin` may call everything. */
  roles: readonly ApiRole[];
  /** One line for the reader of the API's document. */
  summary: string;
  /** What the action takes; the document is made of it. */
  shape: z.ZodType;
}

const READERS: readonly ApiRole[] = ["viewer", "operator"];
const OPERATORS: readonly ApiRole[] = ["operator"];
const ADMINS: readonly ApiRole[] = ["admin"];
/** A worker whose commands start children asks for them as an operator does. */
const STARTERS: readonly ApiRole[] = ["operator", "worker"];
const WORKERS: readonly ApiRole[] = ["worker"];
const ALL: readonly ApiRole[] = ["viewer", "operator", "worker"];

/** Below `/api`. Everything else is unknown: no action is reachable by its name. */
export const API_ROUTES: readonly ApiRoute[] = [
  {
    ...route("POST /execute", "executions.start", startParams, executionsStart),
    ...about("Start an execution of a playbook", STARTERS),
  },
  {
    ...route("GET /executions", "executions.list", queryOf, executionsList),
    ...about("Executions, newest first", READERS),
  },
  {
    ...route("GET /executions/:execution_id", "executions.get", pathAndQuery, executionId),
    ...about("One execution; with page, page_size or event_type, its events", READERS),
    action: request => (asksForEvents(request) ? "executions.events" : "executions.get"),
  },
  {
    ...route(
      "GET /executions/:execution_id/status",
      "executions.status",
      pathAndQuery,
      executionId,
    ),
    ...about("Where an execution stands, in short", READERS),
  },
  {
    ...route(
      "GET /executions/:execution_id/events",
      "executions.events",
      pathAndQuery,
      executionsEvents,
    ),
    ...about("The recorded facts of an execution, page by page", READERS),
  },
  {
    ...route(
      "GET /executions/:execution_id/result",
      "executions.result",
      pathAndQuery,
      executionsResult,
    ),
    ...about("The result of a step, or of the last one", ALL),
  },
  {
    ...route(
      "GET /executions/:execution_id/verify",
      "executions.verify",
      pathAndQuery,
      executionId,
    ),
    ...about("Whether the log of an execution proves what it says", READERS),
  },
  {
    ...route("GET /executions/:execution_id/wait", "executions.wait", pathAndQuery, executionsWait),
    ...about("The execution when it has ended, or as it is at the timeout", ALL),
  },
  {
    ...route("GET /executions/:execution_id/tail", "executions.tail", pathAndQuery, executionsTail),
    ...about("What is new of an execution since a version, or a wait until something is", READERS),
  },
  {
    ...route(
      "GET /executions/:execution_id/stream",
      "executions.tail",
      pathAndQuery,
      executionsStream,
    ),
    ...about("An execution as it goes on: facts, progress and the end", READERS),
    serves: [],
    live: true,
  },
  {
    ...route(
      "POST /executions/:execution_id/cancel",
      "executions.cancel",
      pathAndBody,
      executionsCancel,
    ),
    ...about("Ask an execution to end", OPERATORS),
    status: 202,
  },
  {
    ...route(
      "POST /executions/:execution_id/resume",
      "executions.resume",
      pathAndBody,
      executionsResume,
    ),
    ...about("Go on with an execution that was paused, or left", OPERATORS),
    status: 202,
  },
  {
    ...route(
      "POST /executions/:execution_id/pause",
      "executions.pause",
      pathAndBody,
      executionsPause,
    ),
    ...about("Ask an execution to begin nothing more until it is resumed", OPERATORS),
    status: 202,
  },
  {
    ...route(
      "POST /executions/:execution_id/redrive",
      "executions.redrive",
      pathAndBody,
      executionsRedrive,
    ),
    ...about("Run again what failed of an execution that has ended", OPERATORS),
    status: 202,
  },
  {
    ...route(
      "GET /executions/:execution_id/failures",
      "executions.failures",
      pathAndQuery,
      executionsFailures,
    ),
    ...about("Items of a loop that failed, by index", READERS),
  },
  {
    ...route("GET /dead-letters", "executions.dead_letters", queryOf, executionsDeadLetters),
    ...about("Commands given up because their workers died, newest first", READERS),
  },
  {
    ...route("GET /commands", "commands.waiting", queryOf, commandsWaiting),
    ...about("Commands that wait for a worker", WORKERS),
  },
  {
    ...route("GET /commands/:command_id", "commands.get", pathAndQuery, commandsGet),
    ...about("Who issued a command, and how it ended", ALL),
  },
  {
    ...route("POST /commands/:command_id/claim", "commands.claim", pathAndBody, commandsClaim),
    ...about("Take a command; the answer is all that its work needs", WORKERS),
  },
  {
    ...route("POST /commands/:command_id/value", "commands.value", pathAndBody, commandsValue),
    ...about("A value that the grant of a command only names", WORKERS),
  },
  {
    ...route("POST /events", "commands.report_one", bodyObject, commandsReportOne),
    ...about("One event of a worker: an outcome, a release or a heartbeat", WORKERS),
  },
  {
    ...route("POST /events/batch", "commands.report", bodyObject, commandsReport),
    ...about("Events of a worker, answered one by one", WORKERS),
  },
  {
    ...route("POST /catalog/register", "catalog.register", registerParams, catalogRegister),
    ...about("Put a playbook into the catalog", OPERATORS),
  },
  {
    ...route("GET /catalog", "catalog.list", queryOf, catalogList),
    ...about("Registered playbooks", READERS),
  },
  {
    ...route("GET /catalog/*path", "catalog.get", pathAndQuery, catalogGet),
    ...about("One playbook of the catalog", READERS),
  },
  {
    ...route("GET /workers", "workers.list", queryOf, workersList),
    ...about("Workers, their slots, and whether they live", READERS),
  },
  {
    ...route("GET /limits", "limits.list", queryOf, nothing),
    ...about("Rate limits in force, and upstreams that asked for silence", READERS),
  },
  {
    ...route("POST /limits", "limits.set", bodyObject, limitsSet),
    ...about("Set a rate limit for all workers", OPERATORS),
  },
  {
    ...route("POST /limits/clear", "limits.clear", bodyObject, limitsClear),
    ...about("Take back a limit that was set", OPERATORS),
  },
  {
    ...route("POST /credentials", "credentials.register", bodyObject, credentialsRegister),
    ...about("Store or replace a credential", ADMINS),
  },
  {
    ...route("GET /credentials", "credentials.list", queryOf, nothing),
    ...about("Aliases and types of credentials, never their data", ADMINS),
  },
  {
    ...route("GET /openapi.json", "api.openapi", queryOf, nothing),
    ...about("This description of the API", ALL),
  },
  {
    ...route("POST /keys", "keys.create", bodyObject, keysCreate),
    ...about("Make an API key; it is shown in this answer only", ADMINS),
  },
  {
    ...route("GET /keys", "keys.list", queryOf, nothing),
    ...about("Names, roles and times of API keys", ADMINS),
  },
  {
    ...route("POST /keys/:name/revoke", "keys.revoke", pathAndBody, keysRevoke),
    ...about("End an API key", ADMINS),
  },
];

function route(
  methodAndPath: string,
  action: string,
  params: ApiRoute["params"],
  shape: z.ZodType,
): Omit<ApiRoute, "roles" | "summary"> {
  const [method, path] = methodAndPath.split(" ") as [ApiRoute["method"], string];
  return { method, path, action: () => action, serves: [action], params, shape, status: 200 };
}

function about(summary: string, roles: readonly ApiRole[]): Pick<ApiRoute, "roles" | "summary"> {
  return { summary, roles };
}
