// What a sound run leaves, changed in one place: the checker must name each of these changes.
import type { Evidence } from "./evidence.ts";

const FRAMED = /framed$/;
const LOST_SHARD = /^items: .*fanout accepted \d+ of/;
const isFrame = ({ event_type }: { event_type: string }) => event_type === "frame.committed";

/** Each changes one thing that is left, and what must be said of it. */
export const FORGERIES: [string, (evidence: Evidence) => void, RegExp][] = [
  ["a fact is missing", one => void one.log.events.splice(5, 1), /^log: stream \d+: version/],
  ["the log's own proof fails", one => void one.proven.push("counts: loop 1"), /^verify: counts/],
  ["a secret is found", one => void one.leaks.push("the log of worker-1"), /^secret: the log of/],
  ["an execution runs on", one => void (one.runs[0]!.status = "RUNNING"), /^end: .*RUNNING/],
  ["an execution stood still", one => void (one.log.events[0]!.at -= 90), /^still: .*nothing for/],
  [
    "it failed by itself",
    one => void (one.runs[0]!.status = "FAILED"),
    /^end: .*nothing was given/,
  ],
  ["it was cancelled by nobody", one => void (one.runs[0]!.status = "CANCELLED"), /^end: .*nobody/],
  ["an effect is missing", one => void one.rows.pop(), /^effects: .*its effect is not there/],
  ["an effect is another's", one => void (one.rows[0]!.value = "x"), /^effects: .*the effect x/],
  ["an item was never asked for", one => void forgetCalls(one), /^effects: .*never asked for/],
  ["an effect is no item's", one => void (one.rows[0]!.item = "999"), /^invented: .*is no item/],
  [
    "a call came without a secret",
    one => void (one.calls[0]!.authorized = false),
    /^invented: .*1 calls came without/,
  ],
  [
    "a call is repeated",
    one => void one.calls.push(answeredOf(one)),
    /^repeats: .*1 calls repeated/,
  ],
  ["an item is not accepted", one => void dropFrame(one), /^items: .* accepted \d+ of/],
  ["an item failed for no reason", one => void failFrame(one), /^items: .* failed/],
  [
    "a shard is counted twice",
    one => void again(one, "loop.shard.done"),
    /^log: stream \d+: loop.shard.done of .* after its loop.shard.done/,
  ],
  [
    "a fan-in counts a shard too many",
    one => void countShard(one),
    /^log: stream \d+: the fan-in says \d+ succeeded, not \d+/,
  ],
  [
    "a fan-out is gathered twice",
    one => void again(one, "loop.fanin.completed"),
    /^log: execution \d+: loop \d+: 2 × loop.fanin.completed/,
  ],
  [
    "a shard is lost",
    one => void take(one, "loop.shard.done"),
    /^log: stream \d+: .*fanout:.* has no terminal/,
  ],
  ["items of a lost shard are not accepted", one => void take(one, "loop.shard.done"), LOST_SHARD],
  ["a playbook is told wrong counts", one => void (one.told[0]!.counts["success"] = -1), /^told:/],
  ["a playbook's counts are missing", one => void (one.told = []), /^told: .*not written/],
  ["a call comes after its cancel", one => void callLate(one), /^cancel: .*1 calls long after/],
  ["a claim comes after its cancel", one => void claimLate(one), /^cancel: .*claimed after/],
];

function answeredOf({ calls }: Evidence) {
  return { ...calls.find(call => call.status === 200)! };
}

function forgetCalls(evidence: Evidence): void {
  const { step, item } = evidence.rows[0]!;
  evidence.calls = evidence.calls.filter(call => call.step !== step || call.item !== item);
}

/** A report of a loop in frames: each item of it has its own index. */
function frameOf({ log, runs }: Evidence) {
  const name = runs[0]!.plan.steps.find(step => FRAMED.test(step.name))!.name;
  return log.events.find(
    event => isFrame(event) && String(event.meta["command_id"]).includes(`:${name}:`),
  )!;
}

function dropFrame(evidence: Evidence): void {
  const { log } = evidence;
  log.events.splice(log.events.indexOf(frameOf(evidence)), 1);
}

function failFrame(evidence: Evidence): void {
  const { meta } = frameOf(evidence);
  Object.assign(meta, { ok: "", failed: meta["ok"] });
}

const firstOf = (log: Evidence["log"], type: string) =>
  log.events.find(event => event.event_type === type)!;

/** The same fact once more, as the next one of its stream. */
function again({ log }: Evidence, type: string): void {
  const event = firstOf(log, type);
  for (const one of log.events) {
    if (one.stream_id === event.stream_id && one.version > event.version) one.version += 1;
  }
  const copy = { ...structuredClone(event), version: event.version + 1, event_id: "1" };
  log.events.splice(log.events.indexOf(event) + 1, 0, copy);
  log.heads.find(head => head.stream_id === event.stream_id)!.version += 1;
}

/** As if it had never been there. */
function take({ log }: Evidence, type: string): void {
  const event = firstOf(log, type);
  log.events.splice(log.events.indexOf(event), 1);
  for (const one of log.events) {
    if (one.stream_id === event.stream_id && one.version > event.version) one.version -= 1;
  }
  log.heads.find(head => head.stream_id === event.stream_id)!.version -= 1;
}

function countShard(evidence: Evidence): void {
  const { meta } = firstOf(evidence.log, "loop.fanin.completed");
  for (const name of ["succeeded", "done"]) meta[name] = Number(meta[name]) + 1;
}

/** As if it had been cancelled when it ended. */
function cancel({ log, runs }: Evidence): number {
  const end = log.events.find(
    event => event.execution_id === runs[0]!.id && event.event_type === "playbook.completed",
  )!;
  end.event_type = "execution.cancelled";
  Object.assign(runs[0]!, { status: "CANCELLED", cancelled_at: end.at * 1_000 });
  return end.at;
}

function callLate(evidence: Evidence): void {
  const at = cancel(evidence);
  evidence.calls.push({ ...answeredOf(evidence), at: (at + 60) * 1_000 });
}

function claimLate(evidence: Evidence): void {
  const at = cancel(evidence);
  evidence.log.events.find(event => event.event_type === "command.claimed")!.at = at + 1;
}
