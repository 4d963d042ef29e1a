/**
 * Commands of Moleculer's REPL for executions. Any app may take them: they only call actions, which
 * a node of the same namespace offers.
 */
import type { BrokerOptions, ServiceBroker } from "moleculer";
import { Rejected } from "../schemas/errors.ts";
import { callsOf } from "./backend.ts";
import type { Backend } from "./backend.ts";
import type { ExecutionView } from "./execution-view.ts";
import { errorLines, exitCodeOf, EXIT } from "./exit.ts";
import { watch } from "./follow.ts";
import { readJsonMap, readPayload } from "./inputs.ts";
import { watchKeys } from "./interruption.ts";
import { limitTable, type LimitsView } from "./limits.ts";
import { askToGoOn, askToPause } from "./pause.ts";
import { summaryLines } from "./progress.ts";
import { askAgain, failureLines, redrivenLine } from "./redrive.ts";
import { listed } from "./status.ts";
import { printTail } from "./tail.ts";
import { openScreen, print, say } from "./terminal.ts";
import { workerTable } from "./workers.ts";
import type { WorkerRow } from "./workers.ts";

type ReplCommand = NonNullable<NonNullable<BrokerOptions["replOptions"]>["customCommands"]>[number];

/** What the REPL makes of a line: the words that the command names, and its options. */
interface Line {
  options: Record<string, unknown>;
  id?: string;
  path?: string;
}

type Work = (backend: Backend, line: Line) => Promise<void>;

/**
 * For a broker's options; `broker.repl()` then has them beside its own:
 *
 *     new ServiceBroker({ replOptions: { customCommands: replCommands() } })
 */
export function replCommands(): ReplCommand[] {
  return [
    command("executions", "executions, newest first", showExecutions, {
      "--status <word>": "only RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED",
      "--path <path>": "only of this playbook",
      "--limit <n>": "how many",
    }),
    command("exec <path>", "start a registered playbook", startOne, {
      "--set <name=value...>": "values of the payload, after the path; a.b=1 nests, JSON is parsed",
      "--payload <json>": "payload: JSON in '…', or @file",
      "-w, --wait": "follow it to its end; Ctrl-C leaves it running",
    }),
    command("status <id>", "where an execution stands", showStatus),
    command(
      "tail <id>",
      "facts and progress as they come, until it ends or Ctrl-C",
      async (b, l) => {
        await printTail(b, l.id ?? "", { json: false, interruption: watchKeys() });
      },
    ),
    command("cancel <id>", "end an execution", cancelOne, {
      "--reason <words...>": "kept with the event",
    }),
    command("pause <id>", "begin nothing more of an execution; what runs finishes", pauseOne, {
      "--reason <words...>": "kept with the event",
    }),
    command("resume <id>", "go on with an execution that was paused", resumeOne),
    command("failures <id>", "the items of a loop that failed, and why", showFailures, {
      "--step <step>": "of this loop",
    }),
    command("redrive <id>", "run again what failed of an execution that has ended", redriveOne, {
      "--step <step>": "only this one of the steps that failed",
      "--where <json>": "only failed items that contain this JSON, in '…'",
    }),
    command("workers", "who runs commands, and how busy they are", showWorkers),
    command("limits", "rates in force, and upstreams that asked for silence", showLimits),
  ];
}

function command(
  usage: string,
  description: string,
  work: Work,
  options: Record<string, string> = {},
): ReplCommand {
  return {
    command: usage,
    description,
    options: Object.entries(options).map(([option, meaning]) => ({
      option,
      description: meaning,
    })),
    // The REPL's own types call the line a list of words.
    action: (broker, line: unknown) => perform(broker, work, line as Line),
  };
}

/** An error of the house is a line; the REPL itself would log it with a stack. */
async function perform(broker: ServiceBroker, work: Work, line: Line): Promise<void> {
  // A session ends with the process, not with a command.
  const nothing = () => Promise.resolve();
  try {
    await work({ call: callsOf(broker), drain: nothing, close: nothing }, line);
  } catch (error) {
    for (const text of errorLines(error)) say(text);
    if (exitCodeOf(error) === EXIT.unavailable) say("  'nodes' and 'services' show who is there");
  }
}

async function showExecutions(backend: Backend, { options }: Line): Promise<void> {
  const { status, path, limit } = options;
  const params = {
    ...(status !== undefined && { status }),
    ...(path !== undefined && { path }),
    ...(limit !== undefined && { limit }),
  };
  print(listed("executions", await backend.call("executions.list", params)));
}

async function startOne(backend: Backend, { path = "", options }: Line): Promise<void> {
  const { payload: given, set = [], wait } = options;
  if (given === "@-") throw new Rejected("--payload @- reads what is typed here; use @file");
  const sets = [set].flat().map(word => unquoted(String(word)));
  const payload = await readPayload(given === undefined ? undefined : String(given), sets);
  const { execution_id } = await backend.call<{ execution_id: string }>("executions.start", {
    path: path.replace(/^catalog:\/\//, ""),
    ...(payload && { payload }),
  });
  if (wait) {
    await watch(backend, execution_id, { json: false, interruption: watchKeys() });
  } else print(`${execution_id}  started; see: tail ${execution_id}`);
}

/** The REPL keeps quotes inside a word: `ids='[1, 2]'` means what a shell would make of it. */
function unquoted(word: string): string {
  return word.replace(/=(['"])(.*)\1$/s, (whole, quote: string, inner: string) =>
    quote === "'" ? `=${inner}` : whole,
  );
}

async function showStatus(backend: Backend, { id = "" }: Line): Promise<void> {
  const view = await backend.call<ExecutionView>("executions.get", { execution_id: id });
  print(summaryLines(view, openScreen(process.stdout).colored).join("\n"));
}

async function cancelOne(backend: Backend, { id = "", options }: Line): Promise<void> {
  const reason = [options["reason"] ?? []].flat().join(" ");
  const params = { execution_id: id, ...(reason !== "" && { reason }) };
  const { status } = await backend.call<{ status: string }>("executions.cancel", params);
  print(`${id}  ${status === "CANCELLED" ? status : "cancel requested"}`);
}

async function pauseOne(backend: Backend, { id = "", options }: Line): Promise<void> {
  const reason = [options["reason"] ?? []].flat().join(" ");
  const status = await askToPause(backend, id, reason);
  print(status === "PAUSED" ? `${id}  PAUSED; go on with: resume ${id}` : `${id}  pause requested`);
}

async function resumeOne(backend: Backend, { id = "" }: Line): Promise<void> {
  print(`${id}  ${await askToGoOn(backend, id)}`);
}

async function showFailures(backend: Backend, { id = "", options }: Line): Promise<void> {
  const { step } = options;
  const params = { execution_id: id, ...(step !== undefined && { step }) };
  print(failureLines(id, await backend.call("executions.failures", params)).join("\n"));
}

async function redriveOne(backend: Backend, { id = "", options }: Line): Promise<void> {
  const { step, where: given } = options;
  const where = given === undefined ? undefined : await readJsonMap(String(given), "--where");
  const asked = step === undefined ? {} : { step: String(step) };
  print(redrivenLine(await askAgain(backend, id, { ...asked, where })));
}

async function showWorkers(backend: Backend): Promise<void> {
  const { workers } = await backend.call<{ workers: WorkerRow[] }>("workers.list", {});
  print(workerTable(workers));
}

async function showLimits(backend: Backend): Promise<void> {
  print(limitTable(await backend.call<LimitsView>("limits.list", {})));
}
