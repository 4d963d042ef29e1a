// A worker's way to the servers: over the broker, and over HTTP where the broker reaches nobody and
// NOETL_SERVER_URL names a server.
import type { ServiceBroker } from "moleculer";
import type { ActorKind, Ring } from "../schemas/decider.ts";
import type { Settings } from "../schemas/env.ts";
import { errorType, Unavailable } from "../schemas/errors.ts";
import type { Grant } from "../schemas/frozen-scope.ts";
import type { ClaimBatch, OutcomeRequest, ReleaseRequest } from "./actor-service.ts";
import type { EventSender } from "./event-sender.ts";
import type { Doorbell, Pull } from "./notifications.ts";
import { callOwner, hostsOf, isUnreachable } from "./routing.ts";
import { createServerClient, type ServerClient } from "./server-client.ts";
import { unlessLost } from "./unless-lost.ts";
import { eventOf, type Granted } from "./worker-events.ts";

/** An owner that does not answer is asked again: a claim and a release take no longer. */
const CLAIM_MS = 20_000;
const RELEASE_MS = 5_000;
/** An owner waits this long for its database before it says that it cannot. */
const REPORT_MS = 90_000;
/** A server that does not say at once what waits is passed over. */
const ASK_MS = 2_000;
/** What is asked while NATS is away may reach nobody, though it comes back: it is asked again. */
const AWAY_MS = 2_000;
/** One long poll over HTTP. */
const POLL_MS = 5_000;

export interface LinkOptions {
  broker: ServiceBroker;
  http: Settings["http"];
  /** While NATS is away HTTP is tried first, and what waits for an answer over it waits no more. */
  doorbell: Pick<Doorbell, "connected" | "lost">;
  /** What the worker can run (`schemas/needs.ts`); it is told of everything when absent. */
  offers?: () => string[];
  /** How outcomes go; by calls when absent. */
  events?: { transport: Settings["events"]["transport"]; sender: EventSender | undefined };
}

/** The way of one process; `close` gives its connections back. */
export class ServerLink {
  readonly #broker: ServiceBroker;
  readonly #doorbell: LinkOptions["doorbell"];
  readonly #events: NonNullable<LinkOptions["events"]>;
  readonly #clients: ServerClient[];
  #isHeardOverHttp = false;
  readonly #offers: LinkOptions["offers"];

  constructor({ broker, http, doorbell, events, offers }: LinkOptions) {
    this.#broker = broker;
    this.#doorbell = doorbell;
    this.#offers = offers;
    this.#events = events ?? { transport: "call", sender: undefined };
    const urls = (http.serverUrl ?? "").split(",").map(url => url.trim());
    const { apiKey, clientTimeoutMs: timeoutMs } = http;
    this.#clients = urls
      .filter(url => url !== "")
      .map(url => createServerClient({ url, apiKey, timeoutMs }));
  }

  claim(actor: ActorKind, batch: ClaimBatch): Promise<Granted[]> {
    return this.#either(
      () => this.#owner(actor, "claim", batch.claims, batch, CLAIM_MS),
      client => Promise.all(batch.claims.map(one => claimOverHttp(client, batch, one))),
    );
  }

  /** By the transport that is configured; where that reaches nobody, by calls, and by HTTP. */
  async report(actor: ActorKind, outcomes: OutcomeRequest[]): Promise<Granted[]> {
    const { transport, sender } = this.#events;
    const called = (some: OutcomeRequest[]) =>
      this.#either(
        () => this.#owner(actor, "report", some, { outcomes: some }, REPORT_MS),
        client => reportOverHttp(client, some),
      );
    if (transport === "nats" && sender?.isUp()) return sender.report(outcomes, called);
    if (transport !== "http" || this.#clients.length === 0) return called(outcomes);
    try {
      return await this.#firstReachable(client => reportOverHttp(client, outcomes));
    } catch (error) {
      if (errorType(error) !== "UNAVAILABLE" || !this.#doorbell.connected()) throw error;
      return called(outcomes);
    }
  }

  async release(actor: ActorKind, release: ReleaseRequest): Promise<void> {
    const releases = [release];
    await this.#either<unknown>(
      () => this.#owner(actor, "release", releases, { releases }, RELEASE_MS),
      client => releaseOverHttp(client, release),
    );
  }

  /**
   * What the servers know to wait for a worker, when the doorbell is silent. Over HTTP it waits for
   * `waitMs`, until `signal` aborts, else it answers at once; never throws.
   */
  async waiting(pull: Pull, signal: AbortSignal, waitMs = POLL_MS): Promise<Ring[]> {
    if (this.#doorbell.connected()) {
      return unlessLost(this.#askNodes(pull), this.#doorbell.lost()).catch(() => []);
    }
    return this.#clients.length > 0 ? this.#askHttp(pull, signal, waitMs) : [];
  }

  /** A server answered over HTTP when it was asked last what waits. */
  get isHeardOverHttp(): boolean {
    return this.#isHeardOverHttp;
  }

  /** Any action of a server that the API offers, on whichever node hosts it. */
  call<T>(action: string, params: Record<string, unknown>, timeoutMs: number): Promise<T> {
    const timeout = this.#doorbell.connected() ? timeoutMs : Math.min(timeoutMs, AWAY_MS);
    return this.#either(
      () => this.#broker.call(action, params, { timeout }),
      client => client.call(action, params, { timeoutMs }),
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map(client => client.close()));
  }

  /** The broker's answer, or HTTP's where nobody is reachable there. */
  async #either<T>(
    overBroker: () => Promise<T>,
    overHttp: (client: ServerClient) => Promise<T>,
  ): Promise<T> {
    const hasHttp = this.#clients.length > 0;
    if (this.#doorbell.connected()) {
      const lost = this.#doorbell.lost();
      try {
        // An answer that was on its way over a connection that is lost never comes.
        return await unlessLost(overBroker(), lost);
      } catch (error) {
        if (!hasHttp || (!isUnreachable(error) && !lost.aborted)) throw error;
      }
    }
    return hasHttp ? this.#firstReachable(overHttp) : overBroker();
  }

  async #firstReachable<T>(ask: (client: ServerClient) => Promise<T>): Promise<T> {
    let last: unknown = new Unavailable("no server is named");
    for (const client of this.#clients) {
      try {
        return await ask(client);
      } catch (error) {
        if (errorType(error) !== "UNAVAILABLE") throw error;
        last = error;
      }
    }
    throw last;
  }

  #owner(
    service: ActorKind,
    action: string,
    entries: { stream_id: string }[],
    params: object,
    timeoutMs: number,
  ): Promise<Granted[]> {
    const call = { service, action, params, timeoutMs };
    return callOwner(this.#broker, entries[0]?.stream_id ?? "", call);
  }

  async #askNodes({ max, work_class }: Pull): Promise<Ring[]> {
    const options = { timeout: ASK_MS };
    const answers = hostsOf(this.#broker, "commands").map(nodeID =>
      this.#broker
        .call<{ rings: Ring[] }, object>(
          "commands.waiting",
          { max, work_class, ...this.#words() },
          { ...options, nodeID },
        )
        .then(({ rings }) => rings)
        .catch(() => []),
    );
    return (await Promise.all(answers)).flat().slice(0, max);
  }

  #words(): { words?: string } {
    return this.#offers ? { words: this.#offers().join(",") } : {};
  }

  /** Of the first server that knows of something; the others tell theirs again. */
  async #askHttp({ max, work_class }: Pull, signal: AbortSignal, wait_ms: number): Promise<Ring[]> {
    const params = { max, work_class, wait_ms, ...this.#words() };
    const options = { timeoutMs: wait_ms + ASK_MS, signal };
    let isHeard = false;
    const answers = this.#clients.map(async client => {
      const { rings } = await client.call<{ rings: Ring[] }>("commands.waiting", params, options);
      isHeard = true;
      if (rings.length === 0) throw new Unavailable("nothing waits there");
      return rings.slice(0, max);
    });
    const rings = await Promise.any(answers).catch(() => []);
    if (!signal.aborted) this.#isHeardOverHttp = isHeard;
    return rings;
  }
}

async function claimOverHttp(
  client: ServerClient,
  { worker_id, incarnation, claim_id }: ClaimBatch,
  { command_id, stream_id }: ClaimBatch["claims"][number],
): Promise<Granted> {
  const params = { command_id, stream_id, worker_id, incarnation, claim_id };
  try {
    const grant = await client.call<Grant>("commands.claim", params, { timeoutMs: CLAIM_MS });
    return { command_id, status: "ok", grant };
  } catch (error) {
    const { message, code } = error as Error & { code?: unknown };
    // Held by another, over, or never issued. Anything else (a key that is not known) is no answer.
    if (code !== 409 && code !== 404) throw error;
    return { command_id, status: "refused", reason: "refused", message };
  }
}

async function reportOverHttp(
  client: ServerClient,
  outcomes: OutcomeRequest[],
): Promise<Granted[]> {
  const events = outcomes.map(eventOf);
  const options = { timeoutMs: REPORT_MS };
  const answer = await client.call<{ results: Granted[] }>("commands.report", { events }, options);
  return answer.results;
}

async function releaseOverHttp(
  client: ServerClient,
  { execution_id: _in, ...release }: ReleaseRequest,
): Promise<void> {
  const event = { event_type: "command.released", ...release };
  await client.call("commands.report", { events: [event] }, { timeoutMs: RELEASE_MS });
}
