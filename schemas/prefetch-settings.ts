/**
 * Settings of the capacity gate: what a worker asks before it fetches. `BACKPRESSURE_*` are the
 * names that Argo Events sensors give some of them.
 */
import { choice, count, fraction, list, optional, seconds, text } from "./setting.ts";

/** What may be asked beside the worker's own slots and the pools of its tools, always asked. */
export const GATE_WORDS = ["local", "tool", "quota", "http", "k8s"] as const;

export const PREFETCH_SETTINGS = {
  gate: list(
    "NOETL_PREFETCH_GATE",
    "Asked before each fetch: quota (kept in Postgres), http, k8s; local and tool always are",
  ),
  ratio: fraction("NOETL_PREFETCH_CAPACITY_RATIO", 0.95, "Usable part of every limit of the gate", {
    aliases: ["BACKPRESSURE_CAPACITY_RATIO"],
  }),
  minFree: count("NOETL_PREFETCH_MIN_FREE", 1, "Free capacity that opens a gate that was closed"),
  pollMs: seconds(
    "NOETL_PREFETCH_POLL_INTERVAL_SECONDS",
    5,
    "Between two looks at a closed gate, when nothing tells of a change",
    0.05,
    3_600,
    { aliases: ["BACKPRESSURE_POLL_INTERVAL"] },
  ),
  staleMs: count("NOETL_PREFETCH_STALE_MS", 1_000, "How long an answer is used, ms", 0, 60_000),
  onError: choice(
    "NOETL_PREFETCH_ON_ERROR",
    "closed",
    ["closed", "open"],
    "What a provider that cannot be asked counts as",
  ),
  errorGraceMs: seconds(
    "NOETL_PREFETCH_ERROR_GRACE_SECONDS",
    300,
    "A provider that cannot be asked for so long makes the worker degraded",
    1,
  ),
  maxBlockMs: seconds(
    "NOETL_PREFETCH_MAX_BLOCK_SECONDS",
    0,
    "A gate closed for longer is said to be so, once; 0: never. Nothing is dropped",
    0,
  ),
  /** The quota that is kept in Postgres. */
  reservedName: text("NOETL_PREFETCH_RESERVED_NAME", "commands", "Name of the quota in Postgres"),
  reservedLimit: count(
    "NOETL_PREFETCH_RESERVED_LIMIT",
    0,
    "Its limit: commands at once of all workers with this quota; 0: not set",
    0,
  ),
  /** The probe. */
  httpUrl: optional(
    "NOETL_PREFETCH_HTTP_URL",
    "Answers {limit, used} or {free}; 429 and 503 mean that it is full",
    { pattern: /^https?:\/\/.+/i, expected: "http://host:port/path" },
  ),
  /** The ResourceQuota of Kubernetes. */
  quotaName: optional("NOETL_PREFETCH_QUOTA_NAME", "Its name; set, it is asked (k8s)", {
    aliases: ["BACKPRESSURE_QUOTA_NAME"],
  }),
  quotaResource: text(
    "NOETL_PREFETCH_QUOTA_RESOURCE",
    "count/jobs.batch",
    "The resource of it that counts",
  ),
  quotaNamespace: optional(
    "NOETL_PREFETCH_QUOTA_NAMESPACE",
    "Its namespace; absent: the service account's",
  ),
  kubernetesHost: optional("KUBERNETES_SERVICE_HOST", "Of the API; set in every pod"),
  kubernetesPort: count("KUBERNETES_SERVICE_PORT", 443, "Of the API; set in every pod", 1, 65_535),
  serviceAccount: text(
    "NOETL_PREFETCH_SERVICE_ACCOUNT_DIR",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "Folder with token, ca.crt and namespace",
  ),
};

/** Of this section, by the names in it. */
interface Prefetch {
  gate: string[];
  reservedLimit: number;
  httpUrl: string | undefined;
  quotaName: string | undefined;
  kubernetesHost: string | undefined;
}

/** Whether values fit together, the variable that does not, and what is expected of it. */
export function gateRules(prefetch: Prefetch): [boolean, string, string][] {
  const { gate, reservedLimit, httpUrl, quotaName, kubernetesHost } = prefetch;
  const words: readonly string[] = GATE_WORDS;
  return [
    [
      gate.every(word => words.includes(word)),
      "NOETL_PREFETCH_GATE",
      `words of ${GATE_WORDS.join(", ")}`,
    ],
    [
      !gate.includes("quota") || reservedLimit > 0,
      "NOETL_PREFETCH_RESERVED_LIMIT",
      "1 or more, with quota in NOETL_PREFETCH_GATE",
    ],
    [
      !gate.includes("http") || httpUrl !== undefined,
      "NOETL_PREFETCH_HTTP_URL",
      "an address, with http in NOETL_PREFETCH_GATE",
    ],
    [
      !gate.includes("k8s") || quotaName !== undefined,
      "NOETL_PREFETCH_QUOTA_NAME",
      "the name of a ResourceQuota, with k8s in NOETL_PREFETCH_GATE",
    ],
    [
      quotaName === undefined || kubernetesHost !== undefined,
      "KUBERNETES_SERVICE_HOST",
      "the address of the Kubernetes API, as every pod has it, with NOETL_PREFETCH_QUOTA_NAME",
    ],
  ];
}
