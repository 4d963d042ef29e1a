/** What `noetl doctor` says about NATS: the server, the stream of rings, and its consumer. */
import { inspectJetStream } from "../mixins/jetstream-inspect.ts";
import type { InspectedConsumer, JetStreamReport } from "../mixins/jetstream-inspect.ts";
import type { Settings } from "../schemas/env.ts";
import { errorType } from "../schemas/errors.ts";
import { fail, ok, warn } from "./check.ts";
import type { Check } from "./check.ts";
import { isOlder } from "./doctor-here.ts";
import { errorReport } from "./exit.ts";
import { counted } from "./terminal.ts";

const VERSION_MIN = "2.9.0";
/** What a server older than this cannot do; it says nothing when it is asked to. */
const LOST_BELOW = [
  ["2.10.0", "filters on several subjects, metadata of consumers"],
  ["2.11.0", "a time to live for single keys, pausing a consumer"],
] as const;
const RECONCILE = "start a server or worker with these settings: it corrects this in place";

/** One check where there is no NATS; else the server, the stream and the consumer. */
export async function checkNats(settings: Settings): Promise<Check[]> {
  const { url, stream } = settings.nats;
  if (!url) return [ok("nats", "not used: everything is in one process")];
  let report: JetStreamReport;
  try {
    report = await inspectJetStream(settings);
  } catch (error) {
    if (errorType(error) !== "UNAVAILABLE") throw error;
    return [fail("nats", errorReport(error).error.message, "is it running, is NATS_URL right?")];
  }
  const checks = [judgeServer(report)];
  if (report.stream) checks.push(...judgeStream(report.stream, stream));
  for (const consumer of report.consumers) checks.push(...judgeConsumer(consumer));
  return checks;
}

/** The server alone: its version, and whether it keeps messages. */
export function judgeServer({ version, rtt_ms, stream }: JetStreamReport): Check {
  const found = `nats-server ${version}, answers in ${rtt_ms} ms`;
  if (isOlder(version, VERSION_MIN)) {
    return fail("nats", found, `use nats-server ${VERSION_MIN} or newer`);
  }
  if (!stream) {
    return fail("nats", `${found}, without JetStream`, "start it with -js, or allow the account");
  }
  const lost = LOST_BELOW.filter(([since]) => isOlder(version, since)).map(([, what]) => what);
  if (lost.length === 0) return ok("nats", found);
  return warn("nats", `${found}, and lacks: ${lost.join(", ")}`, "2.11 or newer has them");
}

function judgeStream(
  { wanted, found }: NonNullable<JetStreamReport["stream"]>,
  name: string,
): Check[] {
  if (!found) return [warn("stream", `there is no ${name}`, "the first server or worker makes it")];
  const { config, state } = found;
  const checks: Check[] = [];
  const remake = `nats stream rm ${name}; a start makes it anew, rings come again from Postgres`;
  if (config.retention !== wanted.retention) {
    const said = `${name} has retention ${config.retention}, expected ${wanted.retention}`;
    checks.push(fail("stream", said, remake));
  }
  const subjects = wanted.subjects ?? [];
  for (const subject of subjects.filter(one => !config.subjects.includes(one))) {
    const said = `${name} does not take ${subject}: rings are lost`;
    checks.push(fail("stream", said, RECONCILE));
  }
  if (config.max_msg_size >= 0 && config.max_msg_size < (wanted.max_msg_size ?? 0)) {
    const said = `${name} refuses messages above ${config.max_msg_size} bytes, rings may be larger`;
    checks.push(fail("stream", said, `set max_msg_size to ${wanted.max_msg_size} or more`));
  }
  if (config.discard !== wanted.discard && hasLimit(config)) {
    const said = `${name} refuses new messages when it is full`;
    checks.push(warn("stream", said, `set its discard policy to ${wanted.discard}`));
  }
  if (config.storage !== wanted.storage) {
    const said = `${name} is kept in ${config.storage}: a restart of NATS loses waiting rings`;
    checks.push(warn("stream", said, remake));
  }
  if (checks.length > 0) return checks;
  const size = `${(state.bytes / 1_048_576).toFixed(1)} MiB`;
  return [
    ok("stream", `${name}: ${config.retention}, ${config.storage}, ${subjects.join(" ")}, ${size}`),
  ];
}

/** A stream without limits of its own is never full. */
function hasLimit({ max_msgs, max_bytes }: { max_msgs: number; max_bytes: number }): boolean {
  return max_msgs > 0 || max_bytes > 0;
}

function judgeConsumer({ name, wanted, found }: InspectedConsumer): Check[] {
  if (!found) {
    return [warn("consumer", `there is no ${name}`, "the first server or worker makes it")];
  }
  const { config, state } = found;
  const checks: Check[] = [];
  const remake = `nats consumer rm; a start makes ${name} anew`;
  if (config.deliver_subject !== undefined) {
    checks.push(fail("consumer", `${name} pushes, workers pull`, remake));
  }
  if (config.ack_policy !== wanted.ack_policy) {
    const said = `${name} has ack_policy ${config.ack_policy}, expected ${wanted.ack_policy}`;
    checks.push(fail("consumer", said, remake));
  }
  for (const key of ["max_ack_pending", "ack_wait", "max_deliver", "filter_subject"] as const) {
    if (config[key] === wanted[key]) continue;
    const inEffect = config[key] ?? "none";
    const said = `${name} has ${key} ${inEffect} in effect, configured is ${wanted[key]}`;
    checks.push(fail("consumer", said, RECONCILE));
  }
  const counts =
    `${counted(state.num_pending, "ring")} waiting, ${state.num_ack_pending} of ` +
    `${config.max_ack_pending} taken, ${state.num_redelivered} again, ` +
    `${counted(state.num_waiting, "pull")} open`;
  if (state.num_pending > 0 && state.num_waiting === 0 && state.num_ack_pending === 0) {
    const remedy = "no worker pulls: start one, or look into its log";
    checks.push(warn("consumer", `${name}: ${counts}`, remedy));
  }
  return checks.length > 0 ? checks : [ok("consumer", `${name}: ${counts}`)];
}
