// The Kubernetes API as a pod's service account may read it: one ResourceQuota, over HTTPS with the
// cluster's own certificate authority. No client library: it is one GET.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Agent, request } from "undici";
import { Unavailable } from "../schemas/errors.ts";

export interface QuotaPlace {
  /** Of the API. */
  host: string;
  port: number;
  /** Folder with `token`, `ca.crt` and `namespace`, as Kubernetes mounts it. */
  serviceAccount: string;
  /** Absent: the service account's own. */
  namespace?: string | undefined;
  name: string;
  /** Such as `count/jobs.batch` or `pods`. */
  resource: string;
}

export interface QuotaReader {
  /** What the quota allows and what is used of it. Throws Unavailable, saying what is wrong. */
  read(signal: AbortSignal): Promise<{ limit: number; used: number }>;
  close(): Promise<void>;
}

/** What the API calls a ResourceQuota, as far as we read it. */
interface ResourceQuota {
  status?: { hard?: Record<string, string>; used?: Record<string, string> };
}

export function createQuotaReader(place: QuotaPlace): QuotaReader {
  const { serviceAccount, name, resource } = place;
  const file = (which: string) => readFile(join(serviceAccount, which), "utf8");
  let agent: { ca: string; dispatcher: Agent } | undefined;

  /** A cluster may change its authority: connections are made anew then. */
  function dispatcherFor(ca: string): Agent {
    if (agent?.ca !== ca) {
      void agent?.dispatcher.close();
      agent = { ca, dispatcher: new Agent({ connect: { ca } }) };
    }
    return agent.dispatcher;
  }

  async function get(signal: AbortSignal): Promise<ResourceQuota> {
    // The token is short-lived: Kubernetes writes a new one in time.
    const [token, ca] = await Promise.all([file("token"), file("ca.crt")]);
    const namespace = place.namespace ?? (await file("namespace")).trim();
    const host = place.host.includes(":") ? `[${place.host}]` : place.host;
    const segments = [namespace, "resourcequotas", name].map(encodeURIComponent).join("/");
    const url = `https://${host}:${place.port}/api/v1/namespaces/${segments}`;
    const { statusCode, body } = await request(url, {
      dispatcher: dispatcherFor(ca),
      headers: { authorization: `Bearer ${token.trim()}`, accept: "application/json" },
      signal,
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(refusal(statusCode, namespace));
    return JSON.parse(text) as ResourceQuota;
  }

  function refusal(status: number, namespace: string): string {
    const quota = `ResourceQuota ${namespace}/${name}`;
    if (status === 404) return `there is no ${quota}`;
    if (status !== 401 && status !== 403) return `the Kubernetes API answers ${status}`;
    return `the service account may not get ${quota} (${status}): it needs a Role with that verb`;
  }

  return {
    async read(signal) {
      try {
        const { status } = await get(signal);
        const [hard, used] = [status?.hard?.[resource], status?.used?.[resource]];
        if (hard === undefined || used === undefined) {
          throw new Error(`ResourceQuota ${name} says nothing of ${resource}`);
        }
        return { limit: parseQuantity(hard), used: parseQuantity(used) };
      } catch (error) {
        signal.throwIfAborted();
        throw new Unavailable((error as Error).message);
      }
    },
    close: () => agent?.dispatcher.close() ?? Promise.resolve(),
  };
}

const SUFFIXES: Record<string, number> = {
  ...{ "": 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
};

/** A quantity as Kubernetes writes it: `75`, `1500m`, `2k`, `1Gi`, `1e3`. NaN for anything else. */
export function parseQuantity(text: string): number {
  const [, number = "", suffix = ""] = /^([+-]?[\d.]+(?:e[+-]?\d+)?)([a-zA-Z]*)$/.exec(text) ?? [];
  const factor = SUFFIXES[suffix];
  return number === "" || factor === undefined ? NaN : Number(number) * factor;
}
