// What this worker offers beside its tools: what its machine has, and what its operator says of it.
import { findPython } from "../../mixins/python.ts";
import type { Runtime } from "../../mixins/runtime.ts";

export interface WorkerOffers {
  capabilities: string[];
  labels: string[];
}

/**
 * Where everything is in one process nobody else could run a command: there a tool that lacks its
 * program fails, and says what to do.
 */
export async function findOffers({ settings, doorbell }: OffersNeed): Promise<WorkerOffers> {
  const { capabilities: given, labels } = settings.dispatch;
  const { command } = settings.pythonTool;
  const isAlone = settings.nats.url === undefined && doorbell.connected();
  const place = { command, environment: settings.pythonEnvironment };
  const hasPython = isAlone || given.includes("python") || "python" in (await findPython(place));
  return {
    capabilities: [...new Set([...given, ...(hasPython ? ["python"] : [])])].sort(),
    labels: labels.map(({ name, value }) => `${name}=${value}`).sort(),
  };
}

type OffersNeed = Pick<Runtime, "settings" | "doorbell">;
