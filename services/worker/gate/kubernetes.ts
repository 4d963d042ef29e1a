// The ResourceQuota of a namespace: work that makes pods or jobs waits until they may be made.
import { createQuotaReader, type QuotaPlace } from "../../../mixins/kubernetes.ts";
import { freeOf } from "../../../schemas/capacity.ts";
import type { CapacityProvider } from "./provider.ts";

export function kubernetesProvider(place: QuotaPlace, ratio: number): CapacityProvider {
  const reader = createQuotaReader(place);
  return {
    name: "k8s-quota",
    snapshot: async signal => freeOf(await reader.read(signal), ratio),
    close: () => reader.close(),
  };
}
