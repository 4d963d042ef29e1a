/** The `noetl` command line: names of verbs and options. A verb is loaded when it is asked for. */
import { Command, CommanderError, Option, type CommandOptions } from "commander";
import { packageVersion } from "../mixins/version.ts";
import { API_ROLES } from "../schemas/access.ts";
import { finishWith } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";

const HELP = `
Exit codes: 0 completed, 1 failed or cancelled, 2 refused input,
3 could not reach or start what it needs, 130 stopped by Ctrl-C (go on with: noetl resume ID).
Without --server-url and NOETL_SERVER_URL a command works on the database itself: DATABASE_URL,
else one that is started in .noetl/. noetl config lists all settings.`;

/** `options` are the verb's own and the global ones; each verb declares its own type of them. */
type Verb = (options: never, words: string[]) => Promise<ExitCode>;

const program = new Command("noetl")
  .description("Runs NoETL playbooks as durable executions")
  .version(packageVersion(), "-V, --version")
  .option("--server-url <url>", "ask this server instead of working in this process")
  .option("--api-key <key>", "show it this key; NOETL_API_KEY keeps it out of process lists")
  .option("--json", "print one JSON object on stdout, everything else on stderr")
  .addHelpText("after", HELP)
  .showSuggestionAfterError()
  .exitOverride();

const db = program.command("db").description("the database of the runtime");
const credential = program.command("credential").description("credentials by alias");
const limits = program.command("limits").description("rates that hold for all workers together");
const key = program.command("key").description("API keys, for servers that others can reach");

declareRuns();
declareCatalog();
declareQuestions();
declareHousekeeping();
declareKeys();
declareLimits();
await main();

function declareRuns(): void {
  const payload = new Option("--payload <json>", "payload: JSON, @file or @- for stdin");
  const set = new Option(
    "--set <name=value>",
    "one value of the payload, repeatable; a.b=1 nests, JSON is parsed",
  )
    .argParser((value: string, before: string[]) => [...before, value])
    .default([], "none");
  verb(
    "run <file>",
    "run a playbook (FILE or catalog://PATH) here, to its end",
    async (o, [target]) => (await import("./run.ts")).run(target ?? "", o),
  )
    .addOption(set)
    .addOption(payload)
    .option("--timeout <duration>", 'fail it when it takes longer, such as "30m"');
  verb(
    "resume <id>",
    "go on with an execution that was paused or left, here and to its end",
    async (o, [id]) => (await import("./run.ts")).resume(id ?? "", o),
  );
  verb("pause <id>", "begin nothing more of an execution; what runs finishes", async (o, [id]) =>
    (await import("./pause.ts")).pause(id ?? "", o),
  ).option("--reason <text>", "kept with the event");
  verb("unpause <id>", "end a pause and leave, wherever the execution runs", async (o, [id]) =>
    (await import("./pause.ts")).unpause(id ?? "", o),
  );
  verb("exec <path>", "start a registered playbook on a server", async (o, [path]) =>
    (await import("./exec.ts")).exec(path ?? "", o),
  )
    .addOption(set)
    .addOption(payload)
    .option("--catalog-version <n>", "version of the playbook; the newest when absent")
    .option("--timeout <duration>", 'fail it when it takes longer, such as "30m"')
    .option("--idempotency-key <key>", "the same key starts the same execution once")
    .option("-w, --wait", "follow it to its end");
  verb("redrive <id>", "run again what failed of an execution that has ended", async (o, [id]) =>
    (await import("./redrive.ts")).redrive(id ?? "", o),
  )
    .option("--step <step>", "only this one of the steps that failed")
    .option(
      "--where <json>",
      `only failed items that contain this, such as '{"error": {"code": "HTTP_503"}}'`,
    )
    .option("-w, --wait", "on a server: follow it to its end");
  verb("cancel <id>", "end an execution", async (o, [id]) =>
    (await import("./status.ts")).cancel(id ?? "", o),
  ).option("--reason <text>", "kept with the event");
}

function declareCatalog(): void {
  const strict = new Option("--strict", "refuse also what lacks a program to run, such as python3");
  verb("validate <files...>", "check playbooks without registering them", async (o, files) =>
    (await import("./validate.ts")).validate(files, o),
  ).addOption(strict);
  verb("register [files...]", "put playbooks into the catalog", async (o, files) =>
    (await import("./register.ts")).register(files, o),
  )
    .option("-d, --directory <dir>", "every playbook below this folder")
    .addOption(strict);
}

function declareQuestions(): void {
  verb("status <id>", "where an execution stands", async (o, [id]) =>
    (await import("./status.ts")).status(id ?? "", o),
  ).option("-w, --watch", "until it ends");
  verb("verify <id>", "whether the log of an execution proves what it says", async (o, [id]) =>
    (await import("./verify.ts")).verify(id ?? "", o),
  );
  verb("tail <id>", "its facts and progress as they come, until it ends", async (o, [id]) =>
    (await import("./tail.ts")).tail(id ?? "", o),
  );
  verb("list [what]", "executions (default) or playbooks", async (o, [what]) =>
    (await import("./status.ts")).list(what ?? "executions", o),
  )
    .option("--limit <n>", "how many")
    .option("--status <word>", "only RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED")
    .option("--path <path>", "only of this playbook");
  verb("events <id>", "the recorded facts of an execution", async (o, [id]) =>
    (await import("./status.ts")).events(id ?? "", o),
  )
    .option("--type <type>", "only of this type, such as step.exit")
    .option("--limit <n>", "how many", "200");
  verb("failures <id>", "the items of a loop that failed, and why", async (o, [id]) =>
    (await import("./redrive.ts")).failures(id ?? "", o),
  )
    .option("--step <step>", "of this loop")
    .option("--after <index>", "only above this index")
    .option("--limit <n>", "how many");
  verb("workers", "who takes commands, and whether they live", async o =>
    (await import("./workers.ts")).workers(o),
  ).option("--limit <n>", "how many");
}

function declareHousekeeping(): void {
  serve("start", "serve the API and run executions, until Ctrl-C");
  serve("server", "decide and serve the API; workers join through NATS");
  serve("worker", "run commands for the servers of the same NATS and database");
  verb("repl", "a prompt inside the cluster of NATS_URL, else with all of it in here", async o =>
    (await import("./repl.ts")).repl(o),
  );
  verb("config", "settings in effect and where they come from", async o =>
    (await import("./config.ts")).config(o),
  ).option("--set", "only those set in the environment");
  verb("doctor", "check what it stands on, and say what to do", async o =>
    (await import("./doctor.ts")).doctor(o),
  );
  verb("demo", "a small pipeline over a sample API, on this machine", async o =>
    (await import("./demo.ts")).demo(o),
  );
  const migrate: Verb = async o => (await import("./db.ts")).migrateDatabase(o);
  verb("migrate", "bring it up to this build", migrate, db);
  const add: Verb = async (o, [name]) =>
    (await import("./credential.ts")).addCredential(name ?? "", o);
  verb("add <name>", "store or replace one", add, credential)
    .requiredOption("--type <type>", "postgres, bearer, basic, api_key, …")
    .requiredOption("--data <json>", "JSON, @file or @- for stdin");
  const list: Verb = async o => (await import("./credential.ts")).listCredentials(o);
  verb("list", "aliases and types, never their data", list, credential);
}

function declareKeys(): void {
  const create: Verb = async (o, [name]) => (await import("./key.ts")).createKey(name ?? "", o);
  const role = new Option("--role <role>", "what it is good for").choices(API_ROLES);
  verb("create <name>", "make one; it is printed this once", create, key).addOption(
    role.makeOptionMandatory(),
  );
  const list: Verb = async o => (await import("./key.ts")).listKeys(o);
  verb("list", "names, roles and times, never the keys", list, key);
  const revoke: Verb = async (o, [name]) => (await import("./key.ts")).revokeKey(name ?? "", o);
  verb("revoke <name>", "end one for ever", revoke, key);
}

function declareLimits(): void {
  const show: Verb = async o => (await import("./limits.ts")).listLimits(o);
  const about = "limits in force, and upstreams that asked for silence; also without a verb";
  verb("list", about, show, limits, { isDefault: true });
  const set: Verb = async (o, [target, rate]) =>
    (await import("./limits.ts")).setLimit(target ?? "", rate ?? "", o);
  verb(
    "set <target> <rate>",
    "http:host:api.example.com 200/s; none spares it",
    set,
    limits,
  ).option("--burst <n>", "calls at once after a silence");
  const clear: Verb = async (o, [target]) =>
    (await import("./limits.ts")).clearLimit(target ?? "", o);
  verb("clear <target>", "take back one that was set", clear, limits);
}

/**
 * A command whose options include the global ones, and which ends with the exit code of its verb.
 */
/** A long-running verb: its name is the set of its roles. */
function serve(name: "start" | "server" | "worker", description: string): void {
  verb(name, description, async () => {
    const { ROLES, start } = await import("./start.ts");
    return start(ROLES[name]);
  });
}

function verb(
  usage: string,
  description: string,
  work: Verb,
  parent: Command = program,
  options: CommandOptions = {},
): Command {
  return parent
    .command(usage, options)
    .description(description)
    .action(async (...given: unknown[]) => {
      const command = given.at(-1) as Command;
      const options = command.optsWithGlobals<GlobalOptions>();
      await finishWith(options, () => work(options as never, command.args));
    });
}

async function main(): Promise<void> {
  // A reader that has seen enough, such as head, closes its end: that is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  try {
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version end well; every other complaint is about what was typed.
    process.exitCode = error.exitCode === 0 ? EXIT.completed : EXIT.refused;
  }
}
