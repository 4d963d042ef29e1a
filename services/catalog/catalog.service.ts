// The catalog: playbooks by path and version, refused here when they cannot run.
import { createHash } from "node:crypto";
import type { Context, ServiceBroker, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { remembered } from "../../mixins/cacher/remembered.ts";
import { batched } from "../../mixins/batched.ts";
import { findPython, lackingPython } from "../../mixins/python.ts";
import {
  addPlaybook,
  findPlaybooks,
  listPaths,
  listPlaybooks,
  type CatalogEntry,
  type CatalogKey,
} from "../../mixins/postgres/catalog.ts";
import type { Query } from "../../mixins/postgres/index.ts";
import { Rejected, rejectIssues } from "../../schemas/errors.ts";
import { readPlaybook } from "../../schemas/playbook/parse.ts";
import { nearest } from "../../schemas/playbook/nearest.ts";
import { refuseLacking, refuseUnrunnable, usesKind } from "../../schemas/playbook/unrunnable.ts";
import { unknownNames } from "../../schemas/playbook/unknown-names.ts";
import { RUNNABLE_KINDS } from "../../schemas/tool.ts";
import {
  catalogGet,
  catalogList,
  catalogRegister,
  validated,
  type CatalogRegister,
} from "../../schemas/requests.ts";

/** A version that is asked for again and again costs the database one read in this time. */
const VERSION_KEPT_SECONDS = 3_600;
/** Paths looked through for the nearest one in an error. */
const NEAREST_AMONG = 2_000;

/** The service `catalog` over a process's runtime. */
export default function catalogService(runtime: Runtime): ServiceSchema {
  const { database } = runtime;
  /** A version never changes. The newest is asked for each time: a start may depend on it. */
  const getKept = (broker: ServiceBroker, key: CatalogKey) => {
    const load = () => get(database, find, key);
    if (key.version === undefined) return load();
    const name = `catalog.get:${JSON.stringify([key.path, key.version])}`;
    return remembered(broker, { key: name, ttl: VERSION_KEPT_SECONDS, load });
  };
  const find = batched((keys: CatalogKey[]) => findPlaybooks(database, keys));
  return {
    name: "catalog",
    actions: {
      /** Adds a version of a playbook, unless the newest one is the same text. */
      register: {
        handler: validated(catalogRegister, (ctx: Context, p) => register(runtime, p, ctx)),
      },
      /** A playbook by path: of a version, or the newest. */
      get: { handler: validated(catalogGet, ({ broker }: Context, p) => getKept(broker, p)) },
      list: {
        handler: validated(catalogList, async (_ctx: Context, p) => ({
          playbooks: await listPlaybooks(runtime.database, p.limit),
        })),
      },
    },
  };
}

async function register(runtime: Runtime, request: CatalogRegister, { broker }: Context) {
  const { content, file, strict } = request;
  const reading = readPlaybook(content, { file });
  const issues = refuseUnrunnable(reading.playbook, RUNNABLE_KINDS, reading);
  const { playbook } = reading;
  if (strict && issues.length === 0 && usesKind(playbook, "python")) {
    const problem = await pythonProblem(runtime.settings, broker);
    issues.push(...refuseLacking(playbook, lackingPython(problem), reading));
  }
  if (issues.length > 0) throw rejectIssues(issues, `playbook '${playbook.path}' cannot run`);
  const hash = createHash("sha256").update(content).digest("hex");
  const { path } = playbook;
  const warnings = [...playbook.warnings, ...unknownNames(playbook, reading)];
  const added = await addPlaybook(runtime.database, { path, hash, content });
  return { path, hash, ...added, warnings };
}

/** Where the workers are known one of them says it; else it is looked for on this machine. */
async function pythonProblem(
  { pythonTool: { command }, pythonEnvironment: environment }: Runtime["settings"],
  broker: ServiceBroker,
): Promise<string | undefined> {
  const isKnown = broker.registry.actions.isAvailable("tool.python.check");
  const found = isKnown
    ? await broker.call<{ version: string } | { problem: string }>("tool.python.check")
    : await findPython({ command, environment });
  return "problem" in found ? found.problem : undefined;
}

async function get(
  database: Query,
  find: (key: CatalogKey) => Promise<CatalogEntry | undefined>,
  key: CatalogKey,
) {
  const entry = await find(key);
  if (entry) return entry;
  const { path, version } = key;
  const newest = await find({ path });
  if (newest) {
    throw new Rejected(
      `playbook '${path}' has no version ${version}; the newest is ${newest.version}`,
      404,
    );
  }
  const near = nearest(path, await listPaths(database, NEAREST_AMONG));
  throw new Rejected(`there is no playbook '${path}' in the catalog`, 404, {
    ...(near && { hint: `did you mean '${near}'?` }),
  });
}
