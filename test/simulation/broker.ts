// A broker of one process over the simulated network: what our services use of Moleculer's.
import { randomUUID } from "node:crypto";
import type { ActionSchema, Service, ServiceSchema } from "moleculer";
import type { Network } from "./network.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

export interface CallOptions {
  nodeID?: string;
  timeout?: number;
  meta?: object;
  signal?: AbortSignal;
}

/** All brokers of a world, by node. */
export type Nodes = Map<string, SimBroker>;

interface Hears {
  handler: Handler;
}
type Handler = (this: unknown, ctx: object) => unknown;

interface Wire {
  scheduler: Scheduler;
  network: Network;
  nodes: Nodes;
}

/** Told of each request as it arrives at a node; what it gives is told of the answer. */
export type Witness = (action: string, params: object) => (answer: unknown) => void;

const silent = { info() {}, warn() {}, error() {}, debug() {}, trace() {}, fatal() {} };

export class SimBroker {
  readonly nodeID: string;
  readonly instanceID = randomUUID();
  readonly owner: Owner;
  readonly logger = silent;
  readonly transit = {};
  /** What the bulkheads of tools ask of a broker. */
  readonly options = {};
  readonly Promise = Promise;
  readonly metrics = { set: () => undefined };
  stopping = false;
  /** Nodes that this one believes to be up. */
  readonly known = new Set<string>();
  readonly registry = {
    getServiceList: () => this.#services(),
    getActionEndpointByNodeId: (action: string, node: string) => this.#offers(node, action) || null,
    events: { getAllEndpoints: (event: string) => this.#hearing(event) },
  };
  witness: Witness | undefined;
  readonly #wire: Wire;
  readonly #actions = new Map<string, Handler>();
  readonly names = new Set<string>();
  readonly listeners = new Map<string, (params: object) => void>();
  readonly #schemas: { service: Service; schema: ServiceSchema }[] = [];

  constructor(owner: Owner, wire: Wire) {
    this.owner = owner;
    this.nodeID = owner.name;
    this.#wire = wire;
    this.known.add(this.nodeID);
  }

  getLogger() {
    return silent;
  }

  /** Reaches every node that is known, if it comes through. */
  broadcast(event: string, params: object): Promise<void> {
    const { network, nodes } = this.#wire;
    const sent = JSON.stringify(params);
    for (const node of [...this.known].sort()) {
      const to = nodes.get(node);
      const heard = to?.listeners.get(event);
      if (!to || !heard) continue;
      const arrive = () => heard(JSON.parse(sent) as object);
      network.send(`event:${event}`, this.owner, to.owner, arrive);
    }
    return Promise.resolve();
  }

  host(schema: ServiceSchema): void {
    const service = { name: schema.name, broker: this, logger: silent, schema };
    for (const [name, action] of Object.entries(schema.actions ?? {})) {
      const handler = typeof action === "function" ? action : (action as ActionSchema).handler;
      this.#actions.set(`${schema.name}.${name}`, (handler as Handler).bind(service));
    }
    for (const [event, { handler }] of Object.entries(schema.events ?? {}) as [string, Hears][]) {
      this.listeners.set(event, params => void handler.call(service, { params }));
    }
    this.names.add(schema.name);
    this.#schemas.push({ service: service as unknown as Service, schema });
    (schema.created as Handler | undefined)?.call(service, {});
  }

  async start(): Promise<void> {
    for (const { service, schema } of this.#schemas) {
      await (schema.started as Handler | undefined)?.call(service, {});
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    for (const { service, schema } of this.#schemas.toReversed()) {
      await (schema.stopped as Handler | undefined)?.call(service, {});
    }
  }

  has(action: string): boolean {
    return this.#actions.has(action);
  }

  call<T>(action: string, params: object = {}, options: CallOptions = {}): Promise<T> {
    const node = options.nodeID ?? this.#choose(action);
    if (node === undefined || !this.#offers(node, action)) {
      return Promise.reject(
        failure("SERVICE_NOT_FOUND", `no '${action}' on ${node ?? "any node"}`),
      );
    }
    if (node === this.nodeID) return this.#run(action, params, options, this.nodeID) as Promise<T>;
    return this.#ask<T>(node, action, params, options);
  }

  #services() {
    const { nodes } = this.#wire;
    return [...this.known].sort().flatMap(nodeID => {
      const names = nodes.get(nodeID)?.names ?? [];
      return [...names].map(name => ({ name, nodeID }));
    });
  }

  #hearing(event: string) {
    const known = [...this.known].sort().map(id => this.#wire.nodes.get(id));
    const hearing = known.filter(node => node?.listeners.has(event)) as SimBroker[];
    return hearing.map(({ nodeID: id, instanceID }) => ({ id, node: { instanceID } }));
  }

  #offers(node: string, action: string): boolean {
    return this.known.has(node) && this.#wire.nodes.get(node)?.has(action) === true;
  }

  #choose(action: string): string | undefined {
    if (this.has(action)) return this.nodeID;
    const able = [...this.known].sort().filter(node => this.#offers(node, action));
    return able[Math.floor(this.#wire.scheduler.random() * able.length)];
  }

  async #run(action: string, params: object, options: CallOptions, caller: string) {
    const handler = this.#actions.get(action);
    if (!handler) throw failure("SERVICE_NOT_FOUND", `no '${action}' here`);
    const ctx = {
      ...{ params, meta: options.meta ?? {}, nodeID: caller, broker: this, options, locals: {} },
      ...{ requestID: null, action: { name: action }, service: { fullName: action } },
      call: (name: string, more: object, how?: CallOptions) => this.call(name, more, how),
    };
    const told = this.witness?.(action, params);
    const answer = await handler(ctx);
    told?.(answer);
    return answer;
  }

  #ask<T>(node: string, action: string, params: object, options: CallOptions): Promise<T> {
    const { scheduler, network, nodes } = this.#wire;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const sent = JSON.stringify({ params, meta: options.meta ?? {} });
    const receiver = nodes.get(node) as SimBroker;
    network.send(`call:${action}`, this.owner, receiver.owner, () => {
      const { params: read, meta } = JSON.parse(sent) as { params: object; meta: object };
      const reply = (kind: string, settle: () => void) =>
        network.send(`${kind}:${action}`, receiver.owner, this.owner, settle);
      receiver.#run(action, read, { meta }, this.nodeID).then(
        answer => {
          const text = JSON.stringify(answer ?? null);
          reply("reply", () => resolve(JSON.parse(text) as T));
        },
        (error: unknown) => reply("error", () => reject(overWire(error))),
      );
    });
    const { timeout } = options;
    if (timeout) {
      const late = () => reject(failure("REQUEST_TIMEOUT", `${node} did not answer ${action}`));
      const step = scheduler.after(timeout, "timeout", late, this.owner);
      const done = () => (step.cancelled = true);
      promise.then(done, done);
    }
    return promise;
  }
}

function failure(type: string, message: string): Error {
  return Object.assign(new Error(message), { type, code: 504, retryable: true });
}

/** What Moleculer carries of an error. */
function overWire(error: unknown): Error {
  const { name, message, code, type, retryable, data } = error as Record<string, unknown>;
  const fields = JSON.parse(JSON.stringify({ name, code, type, retryable, data })) as object;
  return Object.assign(new Error(String(message)), fields);
}
