// One schedule: processes over one database and one network, played until all is quiet.
import executionsService from "../../services/executions/executions.service.ts";
import fanoutService from "../../services/fanout/fanout.service.ts";
import loopsService from "../../services/loops/loops.service.ts";
import projectionService from "../../services/projection/projection.service.ts";
import reaperService from "../../services/reaper/reaper.service.ts";
import playbookTool from "../../services/tool.playbook/tool.playbook.service.ts";
import workerService from "../../services/worker/worker.service.ts";
import workersService from "../../services/workers/workers.service.ts";
import { Rejected } from "../../schemas/errors.ts";
import type { Json } from "../../schemas/json.ts";
import { CATALOG_PREFIX } from "../../schemas/playbook/stored-result.ts";
import type { Random } from "../support/random-flows.ts";
import { logValue } from "../support/play-results.ts";
import { SimBroker, type Nodes } from "./broker.ts";
import { createLink } from "./database-link.ts";
import { Bell } from "./doorbell.ts";
import { attend, EPOCH_MS } from "./globals.ts";
import { MemoryTables } from "./memory-tables.ts";
import { Network } from "./network.ts";
import { createSimRuntime, hostAll, SimOwner, type Room } from "./process.ts";
import { playbookOf, settingsOf } from "./remembered.ts";
import type { Sabotage } from "./sabotage.ts";
import { Scheduler } from "./scheduler.ts";
import type { Story } from "./stories.ts";
import { Tools } from "./tools.ts";
import { Weather, type Gust } from "./weather.ts";
import { Witness } from "./witness.ts";

/** Kinds of actors and what else a server hosts: a new kind is one line. */
const SERVER_ROOMS: Room[] = [
  executionsService,
  loopsService,
  fanoutService,
  runtime => projectionService(runtime),
  runtime => reaperService(runtime, { scope: "all", sweepMs: 1_000 }),
  runtime => workersService(runtime),
];
const WORKER_ROOMS: Room[] = [workerService, playbookTool];

export type Role = "server" | "worker" | "client";

export interface WorldOptions {
  random: Random;
  rates: Record<Gust, number>;
  maxAttempts: number;
  snapshotEvents: number;
  /** Of all work, what takes seconds. */
  slowShare: number;
  sabotage?: Sabotage;
  trace?: (line: string) => void;
}

export interface Member {
  owner: SimOwner;
  broker: SimBroker;
  role: Role;
}

export class World {
  readonly scheduler: Scheduler;
  readonly weather: Weather;
  readonly network: Network;
  readonly tables: MemoryTables;
  readonly bell: Bell;
  readonly tools: Tools;
  readonly witness: Witness;
  /** By node; a restarted one takes the place of the one before. */
  readonly members = new Map<string, Member>();
  readonly #options: WorldOptions;
  readonly #nodes: Nodes = new Map();
  readonly #kept = new Map<string, Buffer>();
  readonly #stories = new Map<string, Story>();
  /** Told of each commit before its answer is sent. */
  committed: (owner: SimOwner) => void = () => {};
  #node = 0;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.scheduler = new Scheduler(options.random, options.trace);
    attend(this.scheduler);
    this.weather = new Weather(this.scheduler, options.rates);
    this.network = new Network(this.scheduler, this.weather);
    this.weather.workingOn = () => this.#workingOn();
    this.tables = new MemoryTables(() => EPOCH_MS + this.scheduler.now);
    const wire = { scheduler: this.scheduler, network: this.network, weather: this.weather };
    this.bell = new Bell(wire);
    this.tools = new Tools(this.scheduler, id => this.storyOf(id), options.slowShare);
    this.witness = new Witness(this.tables);
  }

  register(story: Story): void {
    this.#stories.set(story.path, story);
    if (story.child) this.register(story.child);
  }

  /** What an execution plays. */
  storyOf(executionId: string): Story | undefined {
    const first = this.tables.events.get(executionId)?.[0];
    if (first?.event_type !== "playbook.initialized") return undefined;
    return this.#stories.get(first.meta.path);
  }

  /** The kind of the step that the log spoke of last. */
  #workingOn(): string {
    const last = this.tables.log.at(-1)?.event;
    const step =
      last && this.storyOf(last.execution_id)?.steps.find(one => one.name === last.node_name);
    return step?.kind ?? "-";
  }

  /** Starts a process; the others hear of it a little later. */
  boot(name: string, role: Role): Member {
    const { scheduler, weather, tables } = this;
    const owner = new SimOwner(name, scheduler);
    owner.skewMs = scheduler.between(-400, 400);
    const wire = { scheduler, network: this.network, nodes: this.#nodes };
    const broker = new SimBroker(owner, wire);
    broker.witness = this.witness.heard;
    scheduler.current = owner;
    const link = createLink(
      { scheduler, weather, tables, committed: () => this.committed(owner) },
      owner,
    );
    const runtime = createSimRuntime({
      ...{ owner, broker, tables, link, kept: this.#kept, node: (this.#node += 1) },
      doorbell: this.bell.of(owner, this.witness.rung),
      settings: settingsOf(this.#options.maxAttempts),
      sources: {
        playbook: ref => link.run("catalog", () => this.#playbookAt(ref)),
        fromLog: ({ ref, extract }) =>
          link.run("loopLog", () => {
            const events = (id: string) => tables.events.get(id) ?? [];
            const value = logValue(ref, events, extract);
            if (value === undefined) throw new Rejected(`nothing is kept as ${ref}`, 404);
            return value;
          }),
      },
      snapshotEvents: this.#options.snapshotEvents,
    });
    Object.assign(runtime, this.#options.sabotage?.ports?.(runtime, this));
    if (role === "server") hostAll(broker, runtime, [...SERVER_ROOMS, () => this.#catalog()]);
    if (role === "worker") {
      hostAll(broker, runtime, [...WORKER_ROOMS, ...this.tools.services().map(one => () => one)]);
    }
    const member = { owner, broker, role };
    this.members.set(name, member);
    this.#nodes.set(name, broker);
    this.#introduce(broker);
    scheduler.after(scheduler.between(0, 20), "boot", () => void broker.start(), owner);
    scheduler.current = undefined;
    return member;
  }

  /** What happens at every node that sees another one come. */
  #introduce(broker: SimBroker): void {
    for (const { broker: other } of this.members.values()) {
      if (other === broker) continue;
      const meet = () => {
        if (broker.owner.alive) other.known.add(broker.nodeID);
        if (other.owner.alive) broker.known.add(other.nodeID);
      };
      this.scheduler.after(this.scheduler.between(0, 50), "meet", meet);
    }
  }

  #catalog() {
    return {
      name: "catalog",
      actions: {
        get: (ctx: { params: { path: string } }) => {
          const { path } = ctx.params;
          if (!this.#stories.has(path)) throw new Rejected(`no playbook '${path}'`, 404);
          return { path, version: 1, hash: "abc" };
        },
      },
    } as never;
  }

  #playbookAt(ref: string): Json {
    const path = ref.slice(CATALOG_PREFIX.length).split("@")[0] ?? "";
    const found = this.#stories.get(path);
    if (!found) throw new Rejected(`no playbook '${path}'`, 404);
    return playbookOf(found);
  }
}
