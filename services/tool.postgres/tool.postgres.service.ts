/** The postgres tool: statements in a user's database, their rows as data. */
import type { Service, ServiceSchema } from "moleculer";
import {
  ToolFailure,
  configFailure,
  readBoolean,
  readPositive,
  resolveCredential,
  toolAction,
} from "../../mixins/tool.ts";
import type { ToolLimits, ToolRun } from "../../mixins/tool.ts";
import type { RateLimiter } from "../../mixins/rate-limit/limiter.ts";
import { AcquireTimeout } from "../../mixins/postgres/target-acquire.ts";
import { TARGET_DEFAULTS, TargetPools, targetId } from "../../mixins/postgres/target.ts";
import type { PoolTuning, TargetPoolsOptions } from "../../mixins/postgres/target.ts";
import { isObject } from "../../schemas/json.ts";
import type { ToolEnvelope, ToolRequest } from "../../schemas/tool.ts";
import { executeStatements, planStatements } from "./execute.ts";
import type { ExecuteOptions, Planned } from "./execute.ts";
import { databaseFailure } from "./failure.ts";
import { readSql, readTarget } from "./source.ts";
import { toParameter } from "./values.ts";

export interface PostgresToolOptions extends TargetPoolsOptions {
  /** Pool when a task does not say. */
  usePool: boolean;
  /** Tasks of this process at once; more wait in a queue of `maxQueueSize`, then QUEUE_FULL. */
  concurrency: number;
  maxQueueSize: number;
  /**
   * Of all statements of a task together, when it is silent, and the cap on what it may ask for.
   */
  queryTimeoutMs: number;
  queryTimeoutMaxMs: number;
  /** What one task may return; beyond it is an error, never a shorter result. */
  resultMaxRows: number;
  resultMaxBytes: number;
  /** Script files are read from below this folder. */
  scriptRoot: string;
}

export const POSTGRES_DEFAULTS: PostgresToolOptions = {
  ...TARGET_DEFAULTS,
  usePool: true,
  concurrency: 64,
  maxQueueSize: 1000,
  queryTimeoutMs: 3_600_000,
  queryTimeoutMaxMs: 86_400_000,
  resultMaxRows: 200_000,
  resultMaxBytes: 64 * 1024 * 1024,
  scriptRoot: ".",
};

/** $1 … $65535: the protocol counts parameters in 16 bits. */
const MAX_PARAMETERS = 65_535;

/**
 * The service `tool.postgres`. Action `run`: `ToolRequest` with the fields of playbook-dsl §3.3,
 * answers an envelope with the last statement's fields and `command_<i>` of each. Action `stats`
 * (this process only): one line per pool. Busy when too many wait for a connection. Give `pools`
 * to share them.
 */
export function postgresTool(
  options: Partial<PostgresToolOptions> & { pools?: TargetPools; limiter?: RateLimiter } = {},
): ServiceSchema {
  const { pools: shared, limiter, ...given } = options;
  const settings: PostgresToolOptions = { ...POSTGRES_DEFAULTS, ...given };
  const { concurrency, maxQueueSize } = settings;
  const limits: ToolLimits = {
    ...{ tool: "postgres", concurrency, max_queue_size: maxQueueSize, limiter },
  };
  let log: Service["logger"] | undefined;
  let pools = shared;
  const poolsOf = (): TargetPools => {
    pools ??= new TargetPools({
      ...settings,
      onIdleError: (pool, code) => log?.warn({ pool, code }, "tool.postgres.idle_connection_lost"),
    });
    return pools;
  };
  return {
    name: "tool.postgres",
    created(this: Service) {
      log = this.logger;
    },
    actions: {
      run: toolAction(limits, async (request, run) =>
        runPostgres({ ...run, request, settings, pools: poolsOf(), log }),
      ),
      stats: { visibility: "protected", tracing: false, handler: () => pools?.stats() ?? [] },
    },
    async stopped() {
      // A process that ends closes its sockets anyway; waiting for a slow statement would hold it
      // up.
      if (!shared) void pools?.close();
    },
  };
}

interface PostgresRun extends ToolRun {
  request: ToolRequest;
  settings: PostgresToolOptions;
  pools: TargetPools;
  log: Service["logger"] | undefined;
}

async function runPostgres(run: PostgresRun): Promise<ToolEnvelope> {
  const { config, auth } = run.request;
  const texts = await readSql(config, run.settings.scriptRoot);
  const plan = planStatements(texts);
  if (plan.length === 0) throw configFailure("query: it came out empty", "write a statement");
  const options = executeOptions(run);
  const { pool, tuning } = readPool(config.pool, run.settings.usePool);
  const target = readTarget(await resolveCredential(run.ctx, auth), config);
  const startedAt = performance.now();
  let outcome: ToolEnvelope | undefined;
  try {
    const how = { pool, tuning, signal: run.signal };
    outcome = await run.pools.withConnection(target, how, connection =>
      executeStatements(connection, plan, options),
    );
    return outcome;
  } catch (error) {
    throw connectFailure(error, run.signal);
  } finally {
    logRun(run, plan, targetId(target), outcome, performance.now() - startedAt);
  }
}

function executeOptions({ request: { config }, settings, signal }: PostgresRun): ExecuteOptions {
  const seconds = readPositive(config.timeout ?? config.timeout_seconds, "timeout", "seconds");
  const timeoutMs = seconds === undefined ? settings.queryTimeoutMs : Math.ceil(seconds * 1000);
  const transaction = readBoolean(config.transaction, "transaction", false);
  const schema = config.schema ? String(config.schema) : undefined;
  if (schema && !transaction) {
    const hint =
      "a search_path outlives its task: name the schema in the SQL, or add transaction: true";
    throw configFailure("schema: it needs a transaction", hint);
  }
  return {
    parameters: readParameters(config.params),
    transaction,
    schema,
    asObjects: readBoolean(config.as_objects, "as_objects", true),
    timeoutMs: Math.min(timeoutMs, settings.queryTimeoutMaxMs),
    maxRows: settings.resultMaxRows,
    maxBytes: settings.resultMaxBytes,
    signal,
  };
}

function readParameters(value: unknown): unknown[] {
  if (value === undefined || value === null || value === "") return [];
  if (!Array.isArray(value)) throw configFailure("params: expected a list, for $1, $2, …");
  if (value.length > MAX_PARAMETERS) {
    throw configFailure(
      `params: more than ${MAX_PARAMETERS}`,
      "pass one list or JSON value instead",
    );
  }
  return value.map(toParameter);
}

function readPool(value: unknown, byDefault: boolean): { pool: boolean; tuning: PoolTuning } {
  if (!isObject(value)) return { pool: readBoolean(value, "pool", byDefault), tuning: {} };
  const number = (field: string): number | undefined =>
    value[field] === 0 ? 0 : readPositive(value[field], `pool.${field}`, "seconds or connections");
  const ms = (field: string): number | undefined => {
    const seconds = number(field);
    return seconds === undefined ? undefined : Math.max(1, Math.ceil(seconds * 1000));
  };
  const tuning = {
    min: number("min_size"),
    max: number("max_size"),
    maxWaiting: number("max_waiting"),
    timeoutMs: ms("timeout"),
    maxLifetimeMs: ms("max_lifetime"),
    maxIdleMs: ms("max_idle"),
  };
  return { pool: true, tuning };
}

/**
 * What came before the first statement: no connection. Busy and our own errors pass as they are.
 */
function connectFailure(error: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) {
    const message = "cancelled while waiting for a connection";
    return new ToolFailure({ kind: "cancelled", retryable: false, code: "CANCELLED", message });
  }
  if (error instanceof AcquireTimeout) {
    const message = `${error.message} (NOETL_POSTGRES_POOL_TIMEOUT_SECONDS)`;
    const code = "POOL_TIMEOUT";
    const pg = { code, sqlstate: "" };
    return new ToolFailure({ kind: "db_connection", retryable: true, code, message }, { pg });
  }
  const failure = databaseFailure(error);
  return failure ? new ToolFailure(failure.error, { pg: failure.pg }) : error;
}

/** Operation and length only: SQL may hold data, and data may be secret. */
function logRun(
  run: PostgresRun,
  plan: Planned[],
  pool: string,
  outcome: ToolEnvelope | undefined,
  elapsedMs: number,
): void {
  const { execution_id, command_id, step, task } = run.request.command;
  const operation = plan.at(-1)?.statement.operation;
  const length = plan.reduce((sum, { statement }) => sum + statement.text.length, 0);
  const shape = { operation, length, statements: plan.length, pool, ms: Math.round(elapsedMs) };
  const code = outcome?.error?.code;
  run.log?.debug({ execution_id, command_id, step, task, ...shape, code }, "tool.postgres");
}

export default postgresTool();
