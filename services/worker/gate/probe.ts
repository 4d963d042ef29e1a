// A probe over HTTP, at a gate.
import { probe } from "../../../mixins/capacity-probe.ts";
import type { CapacityProvider } from "./provider.ts";

export function probeProvider(url: string, ratio: number): CapacityProvider {
  return { name: "http-probe", snapshot: signal => probe(url, ratio, signal) };
}
