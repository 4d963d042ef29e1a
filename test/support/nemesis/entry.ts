// `noetl server` and `noetl worker` with what a nemesis needs inside a process: an event loop that
// stalls on SIGUSR2, death at a poisonous item, and rules that are switched off on purpose
// (NEMESIS_SWITCH names one of switches.ts).
import { subscribe } from "node:diagnostics_channel";
import { registerHooks } from "node:module";
import { rewriting } from "./switches.ts";

const STALL_MS = 4_500;

const rewritten = rewriting(process.env["NEMESIS_SWITCH"]);
if (rewritten) registerHooks({ load: rewritten });

process.on("SIGUSR2", () => {
  const end = performance.now() + STALL_MS;
  while (performance.now() < end);
});
subscribe("undici:request:create", message => {
  const { request } = message as { request: { path: string } };
  if (request.path.startsWith("/poison/")) process.kill(process.pid, "SIGKILL");
});

await import("../../../cli/noetl.ts");
