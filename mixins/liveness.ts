// Whether the workers that hold commands are alive: their rows in `runtime`, and their own word.
import type { HeldCommand, TurnContext } from "../schemas/decider.ts";
import type { ActorPorts } from "./actor.ts";

type Ports = Pick<
  ActorPorts<never, never, never>,
  "store" | "clock" | "settings" | "holds" | "graceFrom"
>;

/**
 * Rows of the holders, and what the living ones of lapsed leases say that they do not hold. Nobody
 * can show life to a database that is away, so no row counts as older than the end of the last
 * outage.
 */
export async function readLiveness(
  { store, clock, settings, holds, graceFrom }: Ports,
  held: HeldCommand[],
): Promise<Pick<TurnContext, "seen" | "disowned">> {
  const disowned = new Set<string>();
  if (held.length === 0) return { seen: new Map<string, number>(), disowned };
  const rows = await store.readSeen([...new Set(held.map(one => one.incarnation))]);
  const grace = graceFrom();
  const seen = new Map([...rows].map(([incarnation, at]) => [incarnation, Math.max(at, grace)]));
  const lapsed = held.filter(one => one.claimed_at + settings.lease_ms < clock.now());
  for (const [incarnation, commands] of Map.groupBy(lapsed, one => one.incarnation)) {
    if (!seen.has(incarnation)) continue;
    const ids = commands.map(one => one.command_id);
    const kept = await holds(commands[0]?.worker_id ?? "", incarnation, ids);
    if (kept) for (const id of ids) if (!kept.includes(id)) disowned.add(id);
  }
  return { seen, disowned };
}
