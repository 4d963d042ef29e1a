// Whether the workers that hold commands are alive: their rows in `runtime`, and their own word.
import type { HeldCommand, SignOfLife, TurnContext } from "../schemas/decider.ts";
import type { ActorPorts } from "./actor.ts";

type Ports = Pick<
  ActorPorts<never, never, never>,
  "store" | "clock" | "settings" | "holds" | "graceFrom"
>;

/**
 * Rows of the holders, and what the living ones of lapsed leases say that they do not hold. Nobody
 * can show life to a database that is away, so no row counts as older than the end of the last
 * outage, and a missing one as that old for a lease.
 */
export async function readLiveness(
  { store, clock, settings, holds, graceFrom }: Ports,
  held: HeldCommand[],
): Promise<Pick<TurnContext, "seen" | "disowned">> {
  const seen = new Map<string, SignOfLife>();
  const disowned = new Set<string>();
  if (held.length === 0) return { seen, disowned };
  const holders = [...new Map(held.map(one => [one.incarnation, one])).values()];
  let rows = await store.readSeen(holders);
  const lapsed = held.filter(
    one => one.claimed_at + settings.lease_ms < clock.now() && rows.get(one.incarnation) !== "gone",
  );
  const asked = [...Map.groupBy(lapsed, one => one.incarnation)];
  await Promise.all(
    asked.map(async ([incarnation, commands]) => {
      const ids = commands.map(one => one.command_id);
      const kept = await holds(commands[0]?.worker_id ?? "", incarnation, ids);
      if (kept) for (const id of ids) if (!kept.includes(id)) disowned.add(id);
    }),
  );
  // A silent worker has been waited for: what was read before would make the others look as silent.
  if (asked.length > 0) rows = await store.readSeen(holders);
  const grace = Math.max(graceFrom(), clock.now() - store.sinceAwayMs());
  const unseen = grace + settings.lease_ms < clock.now() ? ("silent" as const) : grace;
  for (const { incarnation } of holders) {
    const row = rows.get(incarnation);
    seen.set(incarnation, typeof row === "number" ? Math.max(row, grace) : (row ?? unseen));
  }
  return { seen, disowned };
}
