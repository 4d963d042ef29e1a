/** Limits of calls: how many at once, how many may wait, and how fast. */
import { count, rates, seconds } from "./setting.ts";

export const HTTP_LIMIT_SETTINGS = {
  concurrency: count("NOETL_HTTP_CONCURRENCY", 64, "Requests of this process at once", 1, 10_000),
  maxQueueSize: count("NOETL_HTTP_QUEUE_MAX", 1_000, "Requests that wait for their place"),
  pauseMs: seconds(
    "NOETL_HTTP_PAUSE_SECONDS",
    1,
    "Nobody calls a host for so long after a 429 without Retry-After; 0: go on",
    0,
  ),
};

export const POSTGRES_LIMIT_SETTINGS = {
  concurrency: count("NOETL_POSTGRES_CONCURRENCY", 64, "Tasks of this process at once", 1, 10_000),
  maxQueueSize: count("NOETL_POSTGRES_QUEUE_MAX", 1_000, "Tasks that wait for their place"),
};

export const ACTION_LIMIT_SETTINGS = {
  concurrency: count("NOETL_ACTION_CONCURRENCY", 1_000, "Calls of this process at once", 1, 10_000),
  maxQueueSize: count("NOETL_ACTION_QUEUE_MAX", 10_000, "Calls that wait for their place"),
};

export const RATE_SETTINGS = {
  rates: rates(
    "NOETL_RATE_LIMITS",
    "Limits that all workers share: http:host:api.example.com=200/s,http:host:*=50/s burst 5; " +
      "those of 'noetl limits' win",
  ),
};
