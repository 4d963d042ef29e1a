/** The `noetl` command line: names of verbs and options, and nothing else. */
import { Command, CommanderError, Option } from "commander";
import { packageVersion } from "../mixins/version.ts";
import { Rejected } from "../schemas/errors.ts";
import { config } from "./config.ts";
import { finishWith } from "./context.ts";
import type { GlobalOptions } from "./context.ts";
import { addCredential, listCredentials } from "./credential.ts";
import { migrateDatabase } from "./db.ts";
import { demo } from "./demo.ts";
import { exec } from "./exec.ts";
import type { ExecOptions } from "./exec.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { register } from "./register.ts";
import type { RegisterOptions } from "./register.ts";
import { resume, run } from "./run.ts";
import type { RunOptions } from "./run.ts";
import { start } from "./start.ts";
import { cancel, events, list, status } from "./status.ts";
import type { EventsOptions, ListOptions } from "./status.ts";
import { validate } from "./validate.ts";

const EXIT_CODES = `
Exit codes: 0 completed, 1 failed or cancelled, 2 refused input,
3 could not reach or start what it needs, 130 stopped by Ctrl-C (go on with: noetl resume ID).
Without --server-url and NOETL_SERVER_URL a command works on the database itself: DATABASE_URL,
else one that is started in .noetl/. noetl config lists all settings.`;

type Verb = (options: GlobalOptions, words: string[]) => Promise<ExitCode>;

const program = new Command("noetl")
  .description("Runs NoETL playbooks as durable executions")
  .version(packageVersion(), "-V, --version")
  .option("--server-url <url>", "ask this server instead of working in this process")
  .option("--json", "print one JSON object on stdout, everything else on stderr")
  .addHelpText("after", EXIT_CODES)
  .showSuggestionAfterError()
  .exitOverride()
  .configureOutput({ writeOut: text => void process.stdout.write(text) });

const payloadOption = new Option("--payload <json>", "payload: JSON, @file or @- for stdin");
const setOption = new Option(
  "--set <name=value>",
  "one value of the payload; a.b=1 nests, JSON is parsed",
)
  .argParser((value: string, before: string[]) => [...before, value])
  .default([], "");

verb("run <file>", "run a playbook (FILE or catalog://PATH) here, to its end", (o, [target = ""]) =>
  run(target, o as RunOptions),
)
  .addOption(setOption)
  .addOption(payloadOption);
verb("resume <id>", "go on with an execution that was stopped, to its end", (o, [id = ""]) =>
  resume(id, o),
);
verb("start", "serve the API and run executions, until Ctrl-C", () => start());
verb("exec <path>", "start a registered playbook on a server", (o, [path = ""]) =>
  exec(path, o as ExecOptions),
)
  .addOption(setOption)
  .addOption(payloadOption)
  .option("--catalog-version <n>", "version of the playbook; the newest when absent", Number)
  .option("--idempotency-key <key>", "the same key starts the same execution once")
  .option("-w, --wait", "follow it to its end");
verb("validate <files...>", "check playbooks without registering them", (o, files) =>
  validate(files, o),
);
verb("register [files...]", "put playbooks into the catalog", (o, files) =>
  register(files, o as RegisterOptions),
).option("-d, --directory <dir>", "every playbook below this folder");
verb("status <id>", "where an execution stands", (o, [id = ""]) => status(id, o)).option(
  "-w, --watch",
  "until it ends",
);
verb("list [what]", "executions (default) or playbooks", (o, [what = "executions"]) => {
  if (["executions", "playbooks"].includes(what)) return list(what, o as ListOptions);
  throw new Rejected(`list shows executions or playbooks, not '${what}'`);
})
  .option("--limit <n>", "how many")
  .option("--status <word>", "only RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED")
  .option("--path <path>", "only of this playbook");
verb("events <id>", "the recorded facts of an execution", (o, [id = ""]) =>
  events(id, o as EventsOptions),
)
  .option("--type <type>", "only of this type, such as step.exit")
  .option("--limit <n>", "how many", "200");
verb("cancel <id>", "end an execution", (o, [id = ""]) => cancel(id, o)).option(
  "--reason <text>",
  "kept with the event",
);
verb("config", "settings in effect and where they come from", o => config(o)).option(
  "--set",
  "only those set in the environment",
);
verb("demo", "a small pipeline over a sample API, on this machine", o => demo(o));

const db = program.command("db").description("the database of the runtime");
verb("migrate", "bring it up to this build", o => migrateDatabase(o), db);
const credential = program.command("credential").description("credentials by alias");
verb(
  "add <name>",
  "store or replace one",
  (o, [name = ""]) => addCredential(name, o as GlobalOptions & { type: string; data: string }),
  credential,
)
  .requiredOption("--type <type>", "postgres, bearer, basic, api_key, …")
  .requiredOption("--data <json>", "JSON, @file or @- for stdin");
verb("list", "aliases and types, never their data", o => listCredentials(o), credential);

await main();

/** A command whose options include the global ones, and which ends with the exit code of its verb. */
function verb(usage: string, description: string, work: Verb, parent: Command = program): Command {
  return parent
    .command(usage)
    .description(description)
    .action(async (...given: unknown[]) => {
      const command = given.at(-1) as Command;
      const options = command.optsWithGlobals<GlobalOptions>();
      await finishWith(options, async () => work(options, command.args));
    });
}

async function main(): Promise<void> {
  try {
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version end well; every other complaint is about what was typed.
    process.exitCode = error.exitCode === 0 ? EXIT.completed : EXIT.refused;
  }
}
