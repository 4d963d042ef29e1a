// `noetl start` with a doorbell that fails on purpose: `fault-entry start die|lose N`.
// die: kill -9 of this very process at the N-th ring, after its commit and before the ring.
// lose: the N-th ring and nine more reach nobody, the first one of a command each.
import { startRuntime } from "../../cli/runtime.ts";
import { createLocalDoorbell, type Doorbell } from "../../mixins/notifications.ts";
import { loadSettings } from "../../schemas/env.ts";

const [, , , fault, count] = process.argv;
const from = Number(count);
const LOST_MAX = 10;

/** Rings are counted from the first one of this process. */
function failing(bell: Doorbell): Doorbell {
  let rung = 0;
  const lost = new Set<string>();
  return {
    ...bell,
    ring(ring) {
      rung += 1;
      if (fault === "die" && rung === from) process.kill(process.pid, "SIGKILL");
      const isSpared = rung < from || lost.size >= LOST_MAX || lost.has(ring.command_id);
      if (fault !== "lose" || isSpared) return bell.ring(ring);
      lost.add(ring.command_id);
      process.stderr.write(`lost ring ${rung} of ${ring.command_id}\n`);
    },
  };
}

const runtime = await startRuntime({
  settings: loadSettings(),
  roles: ["server", "worker", "api"],
  scope: "all",
  doorbell: failing(createLocalDoorbell()),
});
const { url } = await runtime.broker.call<{ url: string }>("api.address");
process.stderr.write(`noetl serves ${url}/api\n`);
process.once("SIGTERM", () => void runtime.stop().then(() => process.exit(0)));
