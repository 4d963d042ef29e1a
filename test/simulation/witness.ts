// Looks over everybody's shoulder: what is said must be true of the log at that moment.
import type { WorkerTake } from "../../schemas/actor-requests.ts";
import type { Ring } from "../../schemas/decider.ts";
import { COMMAND_TERMINALS, EXECUTION_TERMINALS, type StoredEvent } from "../../schemas/events.ts";
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
  frame?: object;
}

interface Claims {
  claims: Entry[];
  incarnation: string;
  claim_id: string;
}

interface Reports {
  outcomes: Entry[];
}

type SaysLater = (action: string, params: object) => (answer: unknown) => void;

const ENDS: ReadonlySet<string> = new Set(COMMAND_TERMINALS);
/** After these nothing of the stream is open. */
const CLOSES: ReadonlySet<string> = new Set([
  "loop.done",
  "loop.fanin.completed",
  ...EXECUTION_TERMINALS,
]);

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

  /**
   * Answers to claims and reports are held against the log, as it was when they were asked and as
   * it is now: between the two anything may have been committed.
   */
  readonly heard: SaysLater = (action, params) => {
    const [, verb] = action.split(".");
    if (verb === "claim") return this.#claiming(params as Claims);
    if (verb === "report") return this.#reporting(params as Reports);
    if (verb === "take") this.#giving(params as WorkerTake);
    return () => undefined;
  };

  /** Who is given a command unasked has it in the log. */
  #giving({ given }: WorkerTake): void {
    for (const { grant } of given) {
      const { stream_id, command_id } = grant;
      if (this.#lifeOf(stream_id, command_id).issued) continue;
      this.faults.add(`${command_id} is given before it is issued`);
    }
  }

  /** A claim is repeatable: who has the command is not told that another one has it. */
  #claiming({ claims, incarnation, claim_id }: Claims): (answer: unknown) => void {
    const isHis = ({ stream_id, command_id }: Entry) => {
      const { holder, over } = this.#lifeOf(stream_id, command_id);
      return !over && holder?.incarnation === incarnation && holder.claim_id === claim_id;
    };
    const before = claims.map(isHis);
    return answer => {
      for (const [at, entry] of claims.entries()) {
        const reply = (answer as Reply[])[at];
        const { stream_id, command_id } = entry;
        if (reply?.status === "refused" && before[at] && isHis(entry)) {
          this.faults.add(`${command_id} is refused to who holds it: ${reply.reason}`);
        }
        const { delivery } = this.#lifeOf(stream_id, command_id);
        if (reply?.grant && reply.grant.delivery > delivery) {
          this.faults.add(`${command_id} is granted before its claim is in the log`);
        }
      }
    };
  }

  /** What is accepted is in the log; what is refused cannot be accepted any more. */
  #reporting({ outcomes }: Reports): (answer: unknown) => void {
    const isDue = ({ stream_id, command_id, delivery }: Entry) => {
      const life = this.#lifeOf(stream_id, command_id);
      return !life.over && life.holder !== undefined && life.delivery === delivery;
    };
    const before = outcomes.map(isDue);
    return answer => {
      for (const [at, entry] of outcomes.entries()) {
        const reply = (answer as Reply[])[at];
        const { stream_id, command_id, frame } = entry;
        if (reply?.status === "ok" && !frame && !this.#lifeOf(stream_id, command_id).over) {
          this.faults.add(`the outcome of ${command_id} is accepted and not in the log`);
        }
        const isWrong = reply?.status === "refused" && reply.reason !== "malformed";
        if (isWrong && before[at] && isDue(entry)) {
          this.faults.add(
            `the outcome of ${command_id} is refused: ${reply.reason}, without proof`,
          );
        }
      }
    };
  }

  #lifeOf(streamId: string, commandId: string): Life {
    const events = this.#tables.events.get(streamId) ?? [];
    const life: Life = { issued: false, delivery: 0, over: false };
    for (const event of events) {
      const { command_id } = event.meta as { command_id?: string };
      if (command_id === commandId) step(life, event);
      if (CLOSES.has(event.event_type) && life.issued) life.over = true;
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
