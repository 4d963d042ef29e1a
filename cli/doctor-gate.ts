/** What `noetl doctor` says about admission: a worker's caps, and everybody its gate would ask. */
import { probe } from "../mixins/capacity-probe.ts";
import { createQuotaReader } from "../mixins/kubernetes.ts";
import { readQuota } from "../mixins/postgres/capacity.ts";
import type { Query } from "../mixins/postgres/index.ts";
import { freeOf, type Snapshot } from "../schemas/capacity.ts";
import type { Settings } from "../schemas/env.ts";
import { examine, ok, warn } from "./check.ts";
import type { Check } from "./check.ts";

const ANSWER_MS = 5_000;

/** One line of the caps, and one for each provider outside. Asks, and reserves nothing. */
export async function checkGate(settings: Settings): Promise<Check[]> {
  const { prefetch } = settings;
  const signal = AbortSignal.timeout(ANSWER_MS);
  const checks = [judgeCaps(settings)];
  const { httpUrl } = prefetch;
  if (prefetch.gate.includes("http") && httpUrl !== undefined) {
    const look = () => probe(httpUrl, prefetch.ratio, signal);
    checks.push(...(await examine("gate", async () => judge("http-probe", await look()))));
  }
  if (prefetch.quotaName !== undefined) {
    checks.push(...(await examine("gate", () => checkKubernetes(settings, signal))));
  }
  return checks;
}

/** The quota that is kept in the database, where the gate asks for it. */
export async function checkReserved(query: Query, { prefetch }: Settings): Promise<Check[]> {
  const { gate, reservedName: name, reservedLimit: limit, ratio } = prefetch;
  if (!gate.includes("quota")) return [];
  const used = await readQuota(query, name);
  return [judge(`quota:${name}`, freeOf({ limit, used }, ratio))];
}

function judgeCaps({ worker, postgresTool, prefetch }: Settings): Check {
  const { poolMax } = postgresTool;
  const pools = `pools of ${poolMax}, ${worker.poolWaitingThreshold} waiters tolerated`;
  const asked = prefetch.gate.filter(word => word !== "local" && word !== "tool");
  const also = prefetch.quotaName === undefined ? asked : [...new Set([...asked, "k8s"])];
  const gate = also.length === 0 ? "nobody else is asked" : `also asked: ${also.join(", ")}`;
  const caps = `${worker.maxInflight} items at once, ${worker.maxInflightDb} with databases`;
  return ok("gate", `${caps}; ${pools}; ${gate}`);
}

async function checkKubernetes({ prefetch }: Settings, signal: AbortSignal): Promise<Check> {
  const reader = createQuotaReader({
    ...{ host: prefetch.kubernetesHost ?? "", port: prefetch.kubernetesPort },
    ...{ serviceAccount: prefetch.serviceAccount, namespace: prefetch.quotaNamespace },
    ...{ name: prefetch.quotaName ?? "", resource: prefetch.quotaResource },
  });
  try {
    return judge("k8s-quota", freeOf(await reader.read(signal), prefetch.ratio));
  } finally {
    await reader.close();
  }
}

function judge(name: string, { limit, used, free, reason }: Snapshot): Check {
  const counts = limit === undefined ? "" : `, ${used} of ${limit} used`;
  if (free > 0) return ok("gate", `${name}: ${free} free${counts}`);
  const said = `${name}: nothing free${counts}${reason === undefined ? "" : ` (${reason})`}`;
  return warn("gate", said, "workers fetch nothing until there is: what waits is in the stream");
}
