/**
 * What the actions behind the HTTP API answer, as JSON: the API's document is made of these, and
 * the tests hold real answers against them.
 */
import { z } from "zod";
import { API_ROLES } from "./access.ts";
import { ACTOR_KINDS } from "./decider.ts";
import { jsonObject, named, playbookPath, playbookVersion, time } from "./answer.ts";
import * as executions from "./execution-answers.ts";
import * as limits from "./limit-requests.ts";
import { id } from "./requests.ts";

const hash = z.string().describe("sha256 of the text, as hex");

const issue = named(
  "Issue",
  z.object({
    message: z.string(),
    file: z.string().optional(),
    line: z.int().optional(),
    column: z.int().optional(),
    step: z.string().optional(),
    field: z.string().optional(),
    expected: z.string().optional(),
    hint: z.string().optional(),
  }),
);

const registered = named(
  "PlaybookRegistered",
  z.object({
    path: playbookPath,
    version: playbookVersion,
    hash,
    created: z.boolean().describe("false when the newest version has the same text"),
    warnings: z.array(issue),
  }),
);

const playbook = named(
  "Playbook",
  z.object({
    path: playbookPath,
    version: playbookVersion,
    hash,
    content: z.string().describe("YAML"),
    created_at: time,
  }),
);

const playbookList = named(
  "PlaybookList",
  z.object({
    playbooks: z
      .array(playbook.omit({ content: true }))
      .describe("Of each path the newest version"),
  }),
);

const credential = z.object({
  name: z.string(),
  type: z.string(),
  source: z.enum(["environment", "file", "database"]),
  created_at: time.optional(),
  updated_at: time.optional(),
  key_id: z.string().optional().describe("Digest of the key that sealed it"),
});

const credentialStored = named(
  "CredentialStored",
  credential.extend({ shadowed_by: z.string().optional() }),
);
const credentialList = named(
  "CredentialList",
  z.object({ credentials: z.array(credential) }).describe("Never their data"),
);

const worker = z.object({
  worker_id: z.string(),
  incarnation: z.string().describe("New with every start of the worker"),
  host: z.string(),
  status: z
    .enum(["ready", "unready", "draining", "gone", "lost"])
    .describe("lost: it said nothing for longer than a lease; unready: its pulls bring nothing"),
  reason: z.string().optional().describe("Why it is unready"),
  seen_at: time,
  capacity: z
    .object({
      slots: z.int(),
      free: z.int(),
      free_db: z.int().optional().describe("Of the free ones, those for work on databases"),
      capabilities: z.array(z.string()),
      labels: z.array(z.string()),
    })
    .nullable(),
  in_flight: z.int().nullable().describe("Items that ran when it was last seen"),
});
const unserved = z.object({
  execution_id: id,
  step: z.string(),
  requires: z.array(z.string()),
  seen_at: time,
});
const workerList = named(
  "WorkerList",
  z.object({
    workers: z.array(worker),
    unserved: z.array(unserved).describe("Steps whose commands nobody can run, and what they need"),
  }),
);

const ring = z.object({
  execution_id: id,
  stream_id: id,
  actor: z.enum(ACTOR_KINDS),
  command_id: z.string(),
  step: z.string(),
  kind: z.string(),
  requires: z.array(z.string()).optional().describe("What the worker must offer"),
  delivery: z.int(),
  deaths: z.int().optional(),
});
const ringList = named("RingList", z.object({ rings: z.array(ring) }));

const command = named(
  "Command",
  z.object({
    command_id: z.string(),
    execution_id: id,
    stream_id: id,
    event_id: id,
    step: z.string().nullable(),
    kind: z.string().nullable(),
    status: z.string().describe("open, completed, failed or cancelled"),
    issued_at: time,
    ended_at: time.nullable(),
  }),
);

const grant = named(
  "Grant",
  z
    .looseObject({
      command_id: z.string(),
      execution_id: id,
      stream_id: id,
      step: z.string(),
      activation: z.int(),
      attempt: z.int(),
      delivery: z.int().describe("The fence: outcomes of another delivery are refused"),
      playbook: z.object({ path: z.string(), version: z.int(), hash: z.string() }),
      scope: jsonObject.describe("What the templates of the step may see"),
      iteration: jsonObject.optional(),
    })
    .describe("All that the work of a command needs"),
);

const reply = named(
  "Reply",
  z.object({
    command_id: z.string(),
    status: z.enum(["ok", "refused", "failed"]).describe("failed may be sent again"),
    reason: z.string().optional(),
    message: z.string().optional(),
    error: z.string().optional(),
    retry_after_ms: z.int().optional().describe("failed for want of room: not before this"),
    grant: grant.optional().describe("The next command, when the outcome asked for one"),
    over: z.array(z.string()).optional().describe("To a heartbeat: commands it named that ended"),
  }),
);
const commandValue = named("CommandValue", z.object({ value: z.json() }));
const replies = named("Replies", z.object({ results: z.array(reply) }));

const role = z.enum(API_ROLES);
const keyMade = named(
  "KeyMade",
  z.object({ name: z.string(), role, key: z.string().describe("Shown this once") }),
);
const keyList = named(
  "KeyList",
  z.object({
    keys: z.array(
      z.object({
        name: z.string(),
        role,
        created_at: time,
        created_by: z.string().nullable(),
        last_used_at: time.nullable(),
        revoked_at: time.nullable(),
      }),
    ),
  }),
);
const keyRevoked = named("KeyRevoked", z.object({ name: z.string(), revoked_at: time }));

/** Every error of the API, whatever its status. */
export const problem = named(
  "Problem",
  z.object({
    error: z.looseObject({
      type: z.string().describe("REJECTED, CONFLICT, BUSY, UNAVAILABLE or INTERNAL"),
      code: z.int().describe("The HTTP status"),
      message: z.string(),
      issues: z.array(issue).optional(),
      hint: z.string().optional(),
      retry_after_ms: z.int().optional(),
    }),
    request_id: z.string().optional().describe("Finds the request in the server's log"),
  }),
);

export const health = named(
  "Health",
  z.object({
    status: z
      .enum(["ok", "degraded", "unavailable"])
      .describe("degraded: NATS is away, and workers come by HTTP"),
    version: z.string(),
    uptime_seconds: z.int(),
    checks: z.record(z.string(), z.string()).optional().describe("`ok`, or what is wrong"),
  }),
);

/** By action. */
export const ANSWERS: Readonly<Record<string, z.ZodType>> = {
  "executions.start": executions.executionStarted,
  "executions.list": executions.executionList,
  "executions.get": executions.execution,
  "executions.status": executions.executionStatusInShort,
  "executions.events": executions.eventPage,
  "executions.tail": executions.executionTail,
  "executions.result": executions.stepResult,
  "executions.verify": executions.verification,
  "executions.wait": executions.execution,
  "executions.cancel": executions.cancelRequested,
  "executions.pause": executions.pauseRequested,
  "executions.resume": executions.resumed,
  "executions.redrive": executions.redriven,
  "executions.failures": executions.failures,
  "executions.dead_letters": executions.deadLetters,
  "catalog.register": registered,
  "catalog.get": playbook,
  "catalog.list": playbookList,
  "credentials.register": credentialStored,
  "credentials.list": credentialList,
  "workers.list": workerList,
  "limits.list": limits.limitList,
  "limits.set": limits.limitSet,
  "limits.clear": limits.limitCleared,
  "commands.waiting": ringList,
  "commands.get": command,
  "commands.claim": grant,
  "commands.value": commandValue,
  "commands.report": replies,
  "commands.report_one": reply,
  "keys.create": keyMade,
  "keys.list": keyList,
  "keys.revoke": keyRevoked,
  "api.openapi": jsonObject,
};
