/** `noetl status`, `list`, `events` and `cancel`: questions about executions, and one request. */
import { Rejected } from "../schemas/errors.ts";
import type { Json } from "../schemas/json.ts";
import type { Backend } from "./backend.ts";
import { withBackend } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { hasEnded, jsonView } from "./execution-view.ts";
import type { ExecutionView } from "./execution-view.ts";
import { EXIT, exitCodeOfStatus } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { watch } from "./follow.ts";
import { watchSignals } from "./interruption.ts";
import { howToGoOn } from "./pause.ts";
import { summaryLines } from "./progress.ts";
import { executionTable, factRow, playbookTable } from "./tables.ts";
import type { EventView, ListedPlaybook } from "./tables.ts";
import { unservedLines, type WorkerAnswer } from "./workers.ts";
import { openScreen, print, printJson, table } from "./terminal.ts";

/** Prints where an execution stands; exit code 1 when it FAILED or was CANCELLED. */
export async function status(
  executionId: string,
  options: GlobalOptions & { watch?: boolean },
): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const json = options.json ?? false;
    if (options.watch) {
      return watch(backend, executionId, { json, interruption: watchSignals() });
    }
    const view = await backend.call<ExecutionView>("executions.get", { execution_id: executionId });
    if (json) printJson(jsonView(view));
    else {
      const lines = summaryLines(view, openScreen(process.stdout).colored);
      print([...lines, ...(hasEnded(view) ? [] : await waitingFor(backend, view))].join("\n"));
    }
    return exitCodeOfStatus(view.status);
  });
}

/** What a run waits for that is not over: its user, or workers there are none of for its steps. */
async function waitingFor(
  backend: Backend,
  { execution_id, status }: ExecutionView,
): Promise<string[]> {
  if (status === "PAUSED") return [howToGoOn(execution_id)];
  const { unserved } = await backend.call<WorkerAnswer>("workers.list", {});
  return unservedLines(unserved.filter(one => one.execution_id === execution_id));
}

export interface ListOptions extends GlobalOptions {
  limit?: string;
  status?: string;
  path?: string;
}

/** Newest first. */
export async function list(what: string, options: ListOptions): Promise<ExitCode> {
  if (what !== "executions" && what !== "playbooks") {
    throw new Rejected(`list shows executions or playbooks, not '${what}'`);
  }
  return withBackend(options, ["client"], async backend => {
    const answer =
      what === "playbooks"
        ? await backend.call<Record<string, Json>>("catalog.list", limited(options))
        : await backend.call<Record<string, Json>>("executions.list", {
            ...limited(options),
            ...(options.status && { status: options.status }),
            ...(options.path && { path: options.path }),
          });
    if (options.json) printJson(answer);
    else print(listed(what, answer));
    return EXIT.completed;
  });
}

/** An answer of `executions.list` or `catalog.list` as a table; an empty one says what to do. */
export function listed(what: "executions" | "playbooks", answer: Record<string, unknown>): string {
  if (what === "playbooks") {
    const playbooks = answer["playbooks"] as ListedPlaybook[];
    if (playbooks.length === 0) return "The catalog is empty; fill it with: noetl register FILE";
    return playbookTable(playbooks);
  }
  const views = answer["executions"] as ExecutionView[];
  if (views.length === 0) return "No executions yet; try: noetl run examples/hello.yaml";
  return executionTable(views);
}

function limited({ limit }: ListOptions): { limit?: string } {
  return limit === undefined ? {} : { limit };
}

export interface EventsOptions extends GlobalOptions {
  type?: string;
  limit: string;
}

interface EventPage {
  execution_id: string;
  status: string;
  path: string;
  events: EventView[];
  pagination: { total: number; has_next: boolean };
}

const PAGE_SIZE = 500;

/** Prints the facts of an execution in the order they became true. */
export async function events(executionId: string, options: EventsOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const wanted = Math.max(1, Number(options.limit) || 1);
    const answer = await readEvents(backend, executionId, options.type, wanted);
    if (options.json) printJson(answer);
    else {
      const hidden = answer.pagination.total - answer.events.length;
      print(answer.events.length === 0 ? "No such events." : table(answer.events.map(factRow)));
      if (hidden > 0) print(`… and ${hidden} more (--limit)`);
    }
    return EXIT.completed;
  });
}

async function readEvents(
  backend: Backend,
  executionId: string,
  type: string | undefined,
  wanted: number,
): Promise<EventPage> {
  const found: EventView[] = [];
  for (let page = 1; ; page += 1) {
    const answer = await backend.call<EventPage>("executions.events", {
      execution_id: executionId,
      ...{ page, page_size: Math.min(PAGE_SIZE, wanted) },
      ...(type && { event_type: type }),
    });
    found.push(...answer.events);
    if (found.length >= wanted || !answer.pagination.has_next) {
      return { ...answer, events: found.slice(0, wanted) };
    }
  }
}

/** How long a cancel is watched; usually it is done within a second. */
const CANCEL_WATCH_MS = 3_000;
const CANCEL_POLL_MS = 100;

/** Asks for the end of an execution; it is CANCELLED once everything below it has acknowledged. */
export async function cancel(
  executionId: string,
  options: GlobalOptions & { reason?: string },
): Promise<ExitCode> {
  // With the roles of a server: where none runs, this process has to carry the cancel to its end.
  return withBackend(options, ["server"], async backend => {
    const params = { execution_id: executionId, ...(options.reason && { reason: options.reason }) };
    let { status: word } = await backend.call<{ status: string }>("executions.cancel", params);
    const untilMs = Date.now() + CANCEL_WATCH_MS;
    while (!hasEnded({ status: word }) && Date.now() < untilMs) {
      await new Promise(resolve => setTimeout(resolve, CANCEL_POLL_MS));
      const asked = { execution_id: executionId };
      word = (await backend.call<ExecutionView>("executions.get", asked)).status;
    }
    if (options.json) printJson({ execution_id: executionId, status: word });
    else print(`${executionId}  ${hasEnded({ status: word }) ? word : "cancel requested"}`);
    return EXIT.completed;
  });
}
