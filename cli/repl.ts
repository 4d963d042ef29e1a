/**
 * `noetl repl`: Moleculer's REPL with our commands; as a node of the cluster where NATS_URL is set,
 * else with all roles in this process.
 */
import type { REPLServer } from "node:repl";
import { ServiceBroker } from "moleculer";
import { brokerOptions } from "../moleculer.config.ts";
import { reachNats } from "../mixins/jetstream-inspect.ts";
import type { Settings } from "../schemas/env.ts";
import { Rejected } from "../schemas/errors.ts";
import { commandSettings } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { startRuntime } from "./runtime.ts";
import { say } from "./terminal.ts";

/** Servers of a cluster are known to a new node within this, usually at once. */
const MEET_MS = 3_000;

interface Session {
  broker: ServiceBroker;
  /** Ends what this process runs, and nothing elsewhere. */
  stop(): Promise<void>;
}

/** Stays until `exit`, Ctrl-D or a signal. */
export async function repl(options: GlobalOptions): Promise<ExitCode> {
  if (options.serverUrl !== undefined) {
    throw new Rejected("repl joins a cluster by NATS_URL; it does not speak to a server over HTTP");
  }
  const settings = commandSettings(options);
  const session = settings.nats.url ? await join(settings) : await embed(settings);
  const server = session.broker.repl() as unknown as REPLServer;
  const running = serialise(server);
  await left(server);
  await running();
  // The lease of whatever is cut off here runs out, and another process does it again.
  process.once("SIGINT", () => process.exit(EXIT.interrupted));
  await session.stop();
  return EXIT.completed;
}

/** A node without services of ours: it needs no database, and only asks. */
async function join(settings: Settings): Promise<Session> {
  // The transporter itself would try for ever.
  await reachNats(settings);
  const broker = new ServiceBroker(brokerOptions(settings));
  await broker.start();
  const { namespace } = settings.node;
  await broker.waitForServices("executions", MEET_MS).then(
    () => say(`Joined '${namespace}' as ${broker.nodeID}. 'help' lists the commands.`),
    () =>
      say(`Joined '${namespace}' as ${broker.nodeID}; no server has answered yet (see: nodes).`),
  );
  return { broker, stop: () => broker.stop() };
}

/** As `noetl start`, without the door over HTTP. */
async function embed(settings: Settings): Promise<Session> {
  const { broker, stop } = await startRuntime({
    ...{ settings, roles: ["server", "worker"], scope: "all" },
  });
  say("Everything runs in this process (NATS_URL joins a cluster). 'help' lists the commands.");
  async function end(): Promise<void> {
    say("Stopping; running work is being finished. Ctrl-C stops at once.");
    await stop();
  }
  return { broker, stop: end };
}

/** Resolves at the end of the input, or when a signal asks for it. */
function left(server: REPLServer): Promise<void> {
  // The REPL's own way would stop the broker and the process while our work still drains.
  server.removeAllListeners("exit");
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => server.close());
  }
  return new Promise(resolve => server.once("exit", resolve));
}

/**
 * Commands that come through a pipe are run one after the other, as a script's are; on a terminal a
 * person may type while one runs. `exit` leaves by the same way as the end of the input. Returns a
 * function that waits for what still runs.
 */
function serialise(server: REPLServer): () => Promise<void> {
  const evaluate = server.eval;
  let last: Promise<unknown> = Promise.resolve();
  let closed = false;
  server.once("close", () => (closed = true));
  const evaluateInTurn: typeof evaluate = (line, context, file, done) => {
    const isExit = /^\s*(exit|quit|q)\s*$/.test(line);
    async function run(): Promise<void> {
      if (isExit) return server.close();
      await new Promise<void>(resolve => {
        evaluate.call(server, line, context, file, (...answer) => {
          // There is nobody to prompt after the end of the input.
          if (!closed) done(...answer);
          resolve();
        });
      });
    }
    last = server.terminal ? Promise.all([last, run()]) : last.then(run);
  };
  Object.assign(server, { eval: evaluateInTurn });
  return async () => {
    await last;
  };
}
