// Looks over everybody's shoulder: what is said must be true of the log at that moment.
import type { Ring } from "../../schemas/decider.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import type { MemoryTables } from "./memory-tables.ts";

interface Reply {
  command_id: string;
  status: "ok" | "refused" | "failed";
  reason?: string;
  grant?: { delivery: number };
}

interface Entry {
  stream_id: string;
  command_id: string;
  delivery?: number;
}

const ENDS = new Set(["command.completed", "command.failed", "command.cancelled"]);

/** What the log says of one command. */
interface Life {
  issued: boolean;
  delivery: number;
  /** Who has it now. */
  holder?: { incarnation: string; claim_id: string };
  over: boolean;
}

export class Witness {
  readonly faults = new Set<string>();
  readonly #tables: MemoryTables;

  constructor(tables: MemoryTables) {
    this.#tables = tables;
  }

  /** A ring says nothing that is not committed. */
  readonly rung = ({ command_id, stream_id }: Ring): void => {
    if (!this.#lifeOf(stream_id, command_id).issued) {
      this.faults.add(`${command_id} is rung before it is issued`);
    }
  };

  /** Answers to claims and reports are held against the log. */
  readonly heard = (action: string, params: object, answer: unknown): void => {
    const [, verb] = action.split(".");
    if (verb === "claim") this.#claimed(params as never, answer as Reply[]);
    if (verb === "report") this.#reported(params as never, answer as Reply[]);
  };

  /** A claim is repeatable: who has the command is not told that another one has it. */
  #claimed(
    { claims, ...claimant }: { claims: Entry[]; incarnation: string; claim_id: string },
    replies: Reply[],
  ): void {
    for (const [at, { stream_id, command_id }] of claims.entries()) {
      const reply = replies[at];
      const { holder, over, delivery } = this.#lifeOf(stream_id, command_id);
      const isHis =
        holder?.incarnation === claimant.incarnation && holder.claim_id === claimant.claim_id;
      if (reply?.status === "refused" && isHis && !over) {
        this.faults.add(`${command_id} is refused to who holds it: ${reply.reason}`);
      }
      if (reply?.grant && reply.grant.delivery > delivery) {
        this.faults.add(`${command_id} is granted before its claim is in the log`);
      }
    }
  }

  /** What is accepted is in the log; what is refused cannot be accepted any more. */
  #reported({ outcomes }: { outcomes: (Entry & { frame?: object })[] }, replies: Reply[]): void {
    for (const [at, { stream_id, command_id, delivery, frame }] of outcomes.entries()) {
      const reply = replies[at];
      const life = this.#lifeOf(stream_id, command_id);
      if (reply?.status === "ok" && !frame && !life.over) {
        this.faults.add(`the outcome of ${command_id} is accepted and not in the log`);
      }
      const isDue = life.holder !== undefined && life.delivery === delivery && !life.over;
      const isMalformed = reply?.reason === "malformed";
      if (reply?.status === "refused" && isDue && !isMalformed) {
        this.faults.add(`the outcome of ${command_id} is refused: ${reply.reason}, without proof`);
      }
    }
  }

  #lifeOf(streamId: string, commandId: string): Life {
    const events = this.#tables.events.get(streamId) ?? [];
    const life: Life = { issued: false, delivery: 0, over: false };
    for (const event of events) {
      const { command_id } = event.meta as { command_id?: string };
      if (command_id === commandId) step(life, event);
      const isEnd = event.event_type === "loop.done" || event.event_type.startsWith("playbook.");
      if (isEnd && event.event_type !== "playbook.initialized" && life.issued) life.over = true;
    }
    return life;
  }
}

function step(life: Life, event: StoredEvent): void {
  switch (event.event_type) {
    case "command.issued":
      life.issued = true;
      if (event.meta.claim_id !== undefined) hold(life, 1, event.meta as never);
      break;
    case "command.claimed":
      hold(life, event.meta.delivery, event.meta);
      break;
    case "command.expired":
    case "command.released":
      delete life.holder;
      break;
    default:
      if (ENDS.has(event.event_type)) life.over = true;
      if (event.event_type === "frame.committed" && event.meta.final) life.over = true;
  }
}

function hold(
  life: Life,
  delivery: number,
  { incarnation, claim_id }: { incarnation: string; claim_id: string },
): void {
  life.delivery = delivery;
  life.holder = { incarnation, claim_id };
}
