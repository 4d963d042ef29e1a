// Executions that run while faults happen: so many at all times, some of them cancelled.
import { setTimeout as pause } from "node:timers/promises";
import { until } from "../actors.ts";
import { statusOf } from "../submitted.ts";
import { CHILD, makePlan, type Between, type Plan } from "./kitchen-sink.ts";
import type { Keeper } from "./keeper.ts";

/** One execution: what was asked for, and what became of it. */
export interface Run {
  plan: Plan;
  id: string;
  /** When a cancel was accepted, milliseconds since 1970. */
  cancelled_at?: number;
  status?: string;
}

export interface FeederOptions {
  keeper: Keeper;
  storeUrl: string;
  upstreamUrl: string;
  /** Chance of the execution with this number. */
  between(number: number): Between;
  /** Executions in flight. */
  abreast: number;
  /** Of a hundred, so many are cancelled. */
  cancelPercent: number;
  endMaxMs?: number | undefined;
}

const pathOf = (number: number) => ({ path: `nemesis/sink-${number}` });

/** An execution that has not ended by then, in milliseconds, never does. */
const END_MAX_MS = 120_000;

export class Feeder {
  readonly runs: Run[] = [];
  readonly #options: FeederOptions;
  readonly #mark = crypto.randomUUID();
  #lanes: Promise<void>[] = [];
  #isOver = false;
  #begun = 0;

  constructor(options: FeederOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    await this.#ask("POST", "/catalog/register", CHILD);
    this.#lanes = Array.from({ length: this.#options.abreast }, () => this.#lane());
  }

  async #lane(): Promise<void> {
    while (!this.#isOver) {
      const number = (this.#begun += 1);
      const between = this.#options.between(number);
      await this.#follow(await this.#submit(number, makePlan(between, pathOf(number))), between);
    }
  }

  /** One with an item that kills its workers, beside the others; resolves when it has ended. */
  async poison(): Promise<Run> {
    const number = (this.#begun += 1);
    const plan = makePlan(this.#options.between(number), { ...pathOf(number), poison: true });
    const run = await this.#submit(number, plan);
    await this.#ended(run);
    return run;
  }

  /** Asks until a server accepts it: the key makes it one execution, however often it is asked. */
  async #submit(number: number, plan: Plan): Promise<Run> {
    const body = {
      playbook: plan.playbook,
      payload: { api_url: this.#options.upstreamUrl },
      idempotency_key: `${this.#mark}-${number}`,
    };
    const answer = await this.#ask("POST", "/execute", body);
    const run: Run = { plan, id: String(answer["execution_id"]) };
    this.runs.push(run);
    return run;
  }

  async #follow(run: Run, between: Between): Promise<void> {
    const { cancelPercent } = this.#options;
    const end = this.#ended(run);
    if (between(1, 100) > cancelPercent) return end;
    await Promise.race([pause(between(100, 3_000)), end]);
    if (run.status === undefined) {
      const path = `/executions/${run.id}/cancel`;
      const { status } = await this.#ask("POST", path, {}, [409]);
      if (status !== 409) run.cancelled_at = Date.now();
    }
    await end;
  }

  async #ended(run: Run): Promise<void> {
    const { storeUrl, endMaxMs = END_MAX_MS } = this.#options;
    const look = async (): Promise<string | undefined> => {
      await pause(100);
      const word = await statusOf(storeUrl, run.id).catch(() => undefined);
      return word === "RUNNING" ? undefined : word;
    };
    run.status = await until(look, endMaxMs).catch(() => "RUNNING");
  }

  /** Of whichever server answers; refusals other than those allowed are mistakes of the test. */
  async #ask(
    method: string,
    path: string,
    body: unknown,
    allowed: number[] = [],
  ): Promise<Record<string, unknown>> {
    const { keeper } = this.#options;
    for (let tries = 0; tries < 600; tries += 1) {
      const servers = keeper.servers();
      const server = servers[tries % Math.max(1, servers.length)];
      const answer = await server?.ask(method, path, body).catch(() => undefined);
      if (answer && answer.status < 300) return answer.body;
      if (answer && allowed.includes(answer.status)) return { status: answer.status };
      if (answer && answer.status < 500 && answer.status !== 429) {
        throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
      }
      await pause(100);
    }
    throw new Error(`${method} ${path}: no server took it`);
  }

  /** Begins no more; resolves when all have ended. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#lanes);
  }
}
