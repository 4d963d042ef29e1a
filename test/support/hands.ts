// Work done by hand: a test is the worker of commands that servers issue.
import { randomUUID } from "node:crypto";
import type { Reply } from "../../mixins/actor-service.ts";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { ask, until } from "./actors.ts";
import type { NodeGroup } from "./node-group.ts";

export type Answered = Reply<{ grant?: Grant }>;

/** A command that nobody has claimed or ended. */
export interface Open {
  execution_id: string;
  stream_id: string;
  command_id: string;
  step: string;
}

const OK = { status: "ok", context: null };

/** Waits until so many commands of an execution are open. */
export async function openCommands(url: string, executionId: string, least = 1): Promise<Open[]> {
  return until(async () => {
    const open = await ask<Open>(
      url,
      `select i.execution_id, i.stream_id, i.meta->>'command_id' as command_id, i.node_name as step
       from noetl.event i
       where i.execution_id = $1 and i.event_type = 'command.issued'
         and not i.meta ? 'claim_id' and not exists (
         select 1 from noetl.event e
         where e.execution_id = $1 and e.meta->>'command_id' = i.meta->>'command_id'
           and e.event_type <> 'command.issued')
       order by i.stream_id, i.version`,
      [executionId],
    );
    return open.length >= least && open;
  }, 15_000);
}

const actorOf = ({ execution_id, stream_id }: Open) =>
  execution_id === stream_id ? "executions" : "loops";

export interface Hands {
  readonly worker_id: string;
  /** Claims on one node. The same name again is the same claim. */
  claim(node: number, commands: Open[], claim_id?: string): Promise<Answered[]>;
  /** Says on one node that a command went well, and takes the next one where it is asked to. */
  report(node: number, command: Open, delivery?: number, next?: string): Promise<Answered>;
}

/** A worker with a row in `runtime`, so that nobody takes it for dead. */
export async function handsOf(group: NodeGroup): Promise<Hands> {
  const worker_id = `hands-${randomUUID()}`;
  const incarnation = randomUUID();
  await ask(
    group.database.url,
    `insert into noetl.runtime (worker_id, incarnation, machine, pid, status, capacity, seen_at)
     values ($1, $2, 'elsewhere', 1, 'ready', '{}', now() + interval '1 hour')`,
    [worker_id, incarnation],
  );
  return {
    worker_id,
    claim(node, commands, claim_id = randomUUID()) {
      const actor = commands[0] ? actorOf(commands[0]) : "executions";
      const params = { worker_id, incarnation, claim_id, claims: commands };
      return group.on<Answered[]>(node, `${actor}.claim`, params);
    },
    async report(node, command, delivery = 1, next) {
      const outcome = {
        ...command,
        delivery,
        worker_id,
        result: OK,
        ...(next !== undefined && { next: { worker_id, incarnation, claim_id: next } }),
      };
      const action = `${actorOf(command)}.report`;
      const replies = await group.on<Answered[]>(node, action, { outcomes: [outcome] });
      return replies[0] as Answered;
    },
  };
}
