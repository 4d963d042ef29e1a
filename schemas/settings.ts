/** Every setting of the runtime: one row each, grouped by who reads it. `env.ts` fills it in. */
import { AUTH_MODES } from "./access.ts";
import { DISPATCH_SETTINGS } from "./dispatch-settings.ts";
import { EVENT_SETTINGS } from "./event-settings.ts";
import {
  ACTION_LIMIT_SETTINGS,
  HTTP_LIMIT_SETTINGS,
  POSTGRES_LIMIT_SETTINGS,
  RATE_SETTINGS,
} from "./limit-settings.ts";
import { PREFETCH_SETTINGS } from "./prefetch-settings.ts";
import { PYTHON_SETTINGS } from "./python-settings.ts";
import { choice, count, flag, list, optional, pairs, seconds, text } from "./setting.ts";

export const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const postgresUrl = {
  pattern: /^postgres(ql)?:\/\/.+/i,
  expected: "postgres://user:password@host:port/database",
  secret: true,
};
const httpUrl = { pattern: /^https?:\/\/.+/i, expected: "http://host:port" };
const natsUrl = {
  pattern: /^(nats|tls|ws|wss):\/\/.+/i,
  expected: "nats://host:4222 (several with commas)",
  secret: true,
};

export const SETTINGS = {
  /** Our own store. Without a URL and a host an embedded Postgres is started in the data folder. */
  database: {
    url: optional("DATABASE_URL", "Postgres of the runtime; wins over POSTGRES_*", postgresUrl),
    host: optional("POSTGRES_HOST", "Host, when DATABASE_URL is not set"),
    port: count("POSTGRES_PORT", 5432, "Port, used with POSTGRES_HOST", 1, 65_535),
    user: text("POSTGRES_USER", "noetl", "User, used with POSTGRES_HOST"),
    password: optional("POSTGRES_PASSWORD", "Password, used with POSTGRES_HOST", { secret: true }),
    name: text("POSTGRES_DB", "noetl", "Database, used with POSTGRES_HOST"),
    pooler: choice(
      "DB_POOLER",
      "none",
      ["none", "transaction"],
      "The pooler that is there: transaction is PgBouncer in that mode. Always safe; doctor checks",
    ),
    poolSize: count(
      "NOETL_DB_POOL_SIZE",
      8,
      "Connections of this process to its own store",
      1,
      500,
    ),
    poolWaitMs: seconds("NOETL_DB_POOL_WAIT_SECONDS", 30, "Longest wait for such a connection"),
  },
  /** NATS, absent on a laptop. */
  nats: {
    url: optional("NATS_URL", "NATS servers; absent: everything is in one process", natsUrl),
    user: optional("NATS_USER", "User for NATS"),
    password: optional("NATS_PASSWORD", "Password for NATS", { secret: true }),
    stream: text("NATS_STREAM", "NOETL_COMMANDS", "JetStream stream of command rings"),
    subject: text("NATS_SUBJECT", "noetl.commands", "Subject of command rings"),
    consumer: text("NATS_CONSUMER", "noetl_worker_pool", "Durable pull consumer of the workers"),
    maxDeliver: count(
      "NATS_MAX_DELIVER",
      1000,
      "Rings of one message before it is counted as lost",
    ),
    cache: flag("NOETL_CACHE", true, "Keep answers that last in a NATS KV bucket, for all nodes"),
    cacheBucket: text("NATS_CACHE_BUCKET", "NOETL_CACHE", "Its name, before that of the namespace"),
  },
  /** Workers' events on their way to their owners. */
  events: EVENT_SETTINGS,
  /** What a worker offers, and how servers choose among workers. */
  dispatch: DISPATCH_SETTINGS,
  /** The front door. */
  http: {
    host: text("NOETL_HOST", "127.0.0.1", "Address the API listens on"),
    port: count("NOETL_PORT", 8082, "Port the API listens on; 0 picks a free one", 0, 65_535),
    bodyMaxBytes: count(
      "NOETL_HTTP_BODY_MAX_BYTES",
      8_388_608,
      "Largest request body, bytes",
      1024,
    ),
    auth: choice(
      "NOETL_AUTH",
      "auto",
      AUTH_MODES,
      "API keys: required, off, or auto: required when NOETL_HOST is not this machine only",
    ),
    allowedHosts: list(
      "NOETL_ALLOWED_HOSTS",
      "Names beside localhost in the Host header, while the API is for this machine, without keys",
    ),
    liveStreamsMax: count(
      "NOETL_LIVE_STREAMS_MAX",
      256,
      "Executions followed over HTTP at once (GET /api/executions/ID/stream)",
      1,
      10_000,
    ),
    corsOrigins: list(
      "NOETL_CORS_ALLOWED_ORIGINS",
      "Browser origins that may call the API, with commas; * is any; empty is none",
    ),
    serverUrl: optional(
      "NOETL_SERVER_URL",
      "Server the CLI and workers talk to over HTTP",
      httpUrl,
    ),
    apiKey: optional("NOETL_API_KEY", "Key the CLI and workers show to a server", {
      secret: true,
    }),
    clientTimeoutMs: seconds(
      "NOETL_CLIENT_TIMEOUT_SECONDS",
      40,
      "CLI: longest wait for one answer",
    ),
  },
  /** This process among others. */
  node: {
    namespace: text("NOETL_NAMESPACE", "noetl", "Moleculer namespace: nodes of others do not meet"),
    id: optional("NOETL_NODE_ID", "Moleculer node id; absent: host name and process id"),
    dataDir: text("NOETL_DATA_DIR", ".noetl", "Folder of the embedded Postgres and stored results"),
    storeTier: choice(
      "NOETL_DEFAULT_STORE_TIER",
      "auto",
      ["auto", "local", "postgres"],
      "Where large results go: local is a folder, auto is postgres when DATABASE_URL is set",
    ),
    requestTimeoutMs: seconds("NOETL_REQUEST_TIMEOUT_SECONDS", 10, "Longest wait of a broker call"),
    drainMs: seconds("NOETL_DRAIN_SECONDS", 20, "At stop: longest wait for running work", 0),
  },
  credentials: {
    encryptionKey: optional("NOETL_ENCRYPTION_KEY", "Key that stored credentials are sealed with", {
      // One character repeated is the placeholder people paste; it must not pass for a key.
      pattern: /^(?!(.)\1*=?$)([0-9a-f]{64}|[a-z0-9+/_-]{43}=?)$/i,
      expected: "32 random bytes as base64 or hex (openssl rand -base64 32)",
      secret: true,
    }),
    file: optional("NOETL_CREDENTIALS_FILE", "JSON or YAML map: alias to {type, data}"),
  },
  logging: {
    level: choice("NOETL_LOG_LEVEL", "info", LOG_LEVELS, "Least serious level that is written", {
      aliases: ["LOG_LEVEL"],
      synonyms: { warning: "warn", critical: "fatal" },
    }),
    format: choice(
      "NOETL_LOG_FORMAT",
      "auto",
      ["auto", "json", "text"],
      "json lines, text for people, or auto: text on a terminal",
    ),
    valueMaxChars: count("NOETL_LOG_VALUE_MAX_CHARS", 400, "Longest string in a log line", 16),
    includePayloadOnError: flag(
      "NOETL_LOG_INCLUDE_PAYLOAD_ON_ERROR",
      false,
      "Add a redacted preview of the payload to error lines; for short investigations only",
    ),
  },
  /** Commands in general: leases, rings and attempts. */
  command: {
    leaseMs: seconds("NOETL_COMMAND_LEASE_SECONDS", 30, "A claim without a sign of life ends", 1),
    heartbeatTimeoutMs: seconds(
      "NOETL_COMMAND_HEARTBEAT_TIMEOUT_SECONDS",
      300,
      "Hard limit for a command of a worker that sends no beats",
      1,
    ),
    reRingMs: seconds(
      "NOETL_RERING_SECONDS",
      5,
      "A command nobody claimed is announced again",
      0.1,
    ),
    maxAttempts: count(
      "NOETL_MAX_ATTEMPTS",
      3,
      "Deliveries that may end by the worker's death",
      1,
      100,
    ),
  },
  worker: {
    fetchTimeoutMs: seconds("NOETL_WORKER_NATS_FETCH_TIMEOUT_SECONDS", 30, "One pull from NATS", 1),
    fetchHeartbeatMs: seconds(
      "NOETL_WORKER_NATS_FETCH_HEARTBEAT_SECONDS",
      5,
      "Idle beat of a pull",
      0.5,
    ),
    maxAckPending: count(
      "NOETL_WORKER_NATS_MAX_ACK_PENDING",
      64,
      "Unacknowledged rings of the pool",
    ),
    maxInflight: count("NOETL_WORKER_MAX_INFLIGHT_COMMANDS", 8, "Items running at once", 1, 10_000),
    maxInflightDb: count(
      "NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS",
      4,
      "Of these, items that use a database (postgres, transfer, snowflake); below the former",
      1,
      10_000,
    ),
    throttlePollMs: seconds(
      "NOETL_WORKER_THROTTLE_POLL_INTERVAL_SECONDS",
      0.2,
      "Pause between two looks at a closed capacity gate",
      0.01,
    ),
    poolWaitingThreshold: count(
      "NOETL_WORKER_POSTGRES_POOL_WAITING_THRESHOLD",
      2,
      "Tolerated waiters of a tool pool before the worker fetches no more",
      0,
    ),
    beatMs: seconds("NOETL_WORKER_BEAT_SECONDS", 5, "How often a worker says that it lives", 0.1),
    taskRunsMax: count(
      "NOETL_TASK_SEQUENCE_MAX_ITERATIONS",
      1_000_000,
      "Task runs of one pipeline",
    ),
  },
  prefetch: PREFETCH_SETTINGS,
  /** How executions start beside a request, and what of its context goes with them. */
  starts: {
    events: pairs(
      "NOETL_EVENT_STARTS",
      "Moleculer events that start playbooks: order.created=orders/load,user.*=users/sync",
    ),
    metaKeys: list(
      "NOETL_META_KEYS",
      "Keys of a start's ctx.meta that its actions and children see too",
      ["tenant_id", "user_id", "locale"],
    ),
  },
  /** Rates that hold for all workers together. */
  limits: RATE_SETTINGS,
  /** The action tool. */
  actionTool: {
    ...ACTION_LIMIT_SETTINGS,
    allow: list(
      "NOETL_ACTION_ALLOW",
      "Actions that playbooks may call (users.*, v2.users.**); empty: all but the runtime's own",
    ),
  },
  pythonTool: PYTHON_SETTINGS,
  /** Pools of the postgres tool to users' databases. */
  postgresTool: {
    ...POSTGRES_LIMIT_SETTINGS,
    usePool: flag("NOETL_POSTGRES_USE_POOL_DEFAULT", true, "Pool when a tool does not say"),
    poolMin: count(
      "NOETL_POSTGRES_POOL_MIN_SIZE",
      1,
      "Connections kept while a pool is used",
      0,
      1000,
    ),
    poolMax: count("NOETL_POSTGRES_POOL_MAX_SIZE", 12, "Connections of one pool", 1, 1000),
    maxWaiting: count("NOETL_POSTGRES_POOL_MAX_WAITING", 200, "Waiters of one pool", 0),
    timeoutMs: seconds("NOETL_POSTGRES_POOL_TIMEOUT_SECONDS", 60, "Longest wait for a connection"),
    connectPatienceMs: seconds(
      "NOETL_POSTGRES_CONNECT_PATIENCE_SECONDS",
      5,
      "Longest wait for a database that is away, before a call fails",
      0,
    ),
    maxLifetimeMs: seconds("NOETL_POSTGRES_POOL_MAX_LIFETIME_SECONDS", 3600, "A connection's life"),
    maxIdleMs: seconds("NOETL_POSTGRES_POOL_MAX_IDLE_SECONDS", 600, "Idle connections close"),
    maxPools: count("NOETL_POSTGRES_POOL_MAX_POOLS", 32, "Pools kept; the least used one closes"),
    directMax: count("NOETL_POSTGRES_DIRECT_MAX_CONCURRENCY", 4, "Connections without a pool"),
    directAttempts: count(
      "NOETL_POSTGRES_DIRECT_MAX_ATTEMPTS",
      3,
      "Tries to connect without a pool",
    ),
  },
  /** The http tool. */
  httpTool: {
    ...HTTP_LIMIT_SETTINGS,
    timeoutMs: seconds("NOETL_HTTP_TIMEOUT_SECONDS", 60, "Of one request, when the tool is silent"),
    timeoutMaxMs: seconds("NOETL_HTTP_TIMEOUT_MAX_SECONDS", 180, "Cap on what a tool may ask for"),
    connectTimeoutMs: seconds("NOETL_HTTP_CONNECT_TIMEOUT_SECONDS", 10, "To open a connection"),
    maxConnections: count(
      "NOETL_HTTP_MAX_CONNECTIONS",
      100,
      "Connections to one origin",
      1,
      10_000,
    ),
    keepAliveMs: seconds("NOETL_HTTP_KEEPALIVE_EXPIRY_SECONDS", 30, "Idle connections close"),
    responseMaxBytes: count(
      "NOETL_HTTP_RESPONSE_MAX_BYTES",
      33_554_432,
      "Largest response, bytes",
      1024,
    ),
    retryAfterMaxMs: seconds("NOETL_HTTP_RETRY_AFTER_MAX_SECONDS", 300, "Cap on Retry-After", 0),
  },
} as const;
