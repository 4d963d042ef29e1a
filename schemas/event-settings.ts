/** Settings of the way that workers' outcomes take, and of the servers that take them in. */
import { choice, count, text } from "./setting.ts";

export const EVENT_TRANSPORTS = ["call", "nats", "http"] as const;

export const EVENT_SETTINGS = {
  transport: choice(
    "NOETL_EVENT_TRANSPORT",
    "call",
    EVENT_TRANSPORTS,
    "How a worker reports outcomes: Moleculer calls, JetStream, or HTTP to NOETL_SERVER_URL",
  ),
  stream: text(
    "NOETL_EVENT_NATS_STREAM",
    "NOETL_WORKER_EVENTS",
    "JetStream stream of workers' events",
  ),
  subjectPrefix: text(
    "NOETL_EVENT_NATS_SUBJECT_PREFIX",
    "noetl.events",
    "Their subjects are this and the execution's id",
  ),
  streamMaxBytes: count(
    "NOETL_EVENT_NATS_MAX_BYTES",
    536_870_912,
    "Bytes of that stream at most: the oldest go first, and are told again if nobody took them",
    1_048_576,
    1e12,
  ),
  ingestMax: count(
    "NOETL_EVENT_INGEST_MAX",
    4_000,
    "Outcomes that one server takes in at a time; whoever brings more is told to come later",
    1,
    1_000_000,
  ),
};
