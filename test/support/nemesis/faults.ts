// Every kind of fault: how often it strikes beside the others, and what it does until it is over.
import { setTimeout as pause } from "node:timers/promises";
import { connect } from "nats";
import pg from "pg";
import type { NoetlProcess } from "../process.ts";
import { ask } from "../actors.ts";
import type { Between } from "./kitchen-sink.ts";
import type { Scene } from "./scene.ts";
import type { Weather } from "./upstream.ts";

export interface FaultKind {
  name: string;
  /** Strikes so often, beside the weights of the others. */
  weight: number;
  /** What it is told of together with. */
  family: string;
  /** Resolves with what was done, when the fault is over and everything could be well again. */
  strike(scene: Scene, between: Between): Promise<string>;
}

const COMMANDS = "NOETL_COMMANDS";
const POOL = "noetl_worker_pool";

/** Each kind of fault; a new one is one entry more. A family is one row of the README. */
export const FAULT_KINDS: FaultKind[] = [
  fault("worker killed", 5, (scene, between) => killed(scene, between, "workers")),
  fault("server killed", 5, (scene, between) => killed(scene, between, "servers")),
  fault("worker and server killed", 2, (scene, between) =>
    together(killed(scene, between, "workers"), killed(scene, between, "servers")),
  ),
  fault("worker frozen", 3, (scene, between) => frozen(scene, between, "workers"), "stands still"),
  fault("server frozen", 3, (scene, between) => frozen(scene, between, "servers"), "stands still"),
  fault("event loop stalled", 2, stalled, "stands still"),
  fault("Postgres crashed", 4, postgresCrashed),
  fault("Postgres crashed and server killed", 2, (scene, between) =>
    together(postgresCrashed(scene, between), killed(scene, between, "servers")),
  ),
  fault("pool exhausted", 2, poolExhausted),
  fault("commit sent and connection cut", 3, cut("store", "sent"), "commit"),
  fault("commit done and answer lost", 3, cut("store", "answered"), "commit"),
  fault("deadlock (40P01)", 2, refusingAppends("40P01"), "refused"),
  fault("serialization failure (40001)", 2, refusingAppends("40001"), "refused"),
  fault("target crashed", 2, targetCrashed, "target"),
  fault("target answer lost", 2, cut("target", "answered"), "target"),
  fault("target deadlocks", 2, refusingRows, "target"),
  fault("NATS killed and emptied", 3, natsEmptied),
  fault("NATS silent", 2, natsSilent),
  fault("stream deleted", 2, scene => deleted(scene, "stream"), "deleted"),
  fault("consumer deleted", 2, scene => deleted(scene, "consumer"), "deleted"),
  fault("messages doubled", 3, doubled, "messages"),
  fault("messages late", 3, late, "messages"),
  fault("upstream 429", 2, upstream(429), "upstream"),
  fault("upstream 503", 2, upstream(503), "upstream"),
  fault("upstream slow", 1, slow, "upstream"),
  fault("upstream reset after the request", 2, upstream("reset")),
  fault("poison item", 1, poisoned),
];

/** A kind of its own family, unless it says another. */
function fault(
  name: string,
  weight: number,
  strike: FaultKind["strike"],
  family = name,
): FaultKind {
  return { name, weight, strike, family };
}

/** Throws for a name that no kind has. */
export function kindsNamed(names: string[]): FaultKind[] {
  return names.map(name => {
    const found = FAULT_KINDS.find(kind => kind.name === name);
    if (!found) throw new Error(`no fault is called '${name}'`);
    return found;
  });
}

async function together(...faults: Promise<string>[]): Promise<string> {
  return (await Promise.all(faults)).join(", ");
}

type Side = "workers" | "servers";

/** One that runs; waits for one where all are being begun again. */
async function someOf<T>(list: () => T[], between: Between): Promise<T> {
  for (;;) {
    const there = list();
    if (there.length > 0) return there[between(0, there.length - 1)]!;
    await pause(50);
  }
}

async function victim(scene: Scene, between: Between, side: Side) {
  return someOf<NoetlProcess & { name: string }>(() => scene.keeper[side](), between);
}

async function killed(scene: Scene, between: Between, side: Side): Promise<string> {
  const one = await victim(scene, between, side);
  await one.kill();
  return `${one.name} killed`;
}

/** Up to twice its lease; it goes on as if no time had passed. */
async function frozen(
  scene: Scene,
  between: Between,
  side: Side,
  ms = between(300, 6_500),
): Promise<string> {
  const one = await victim(scene, between, side);
  one.freeze();
  await pause(ms);
  one.thaw();
  return `${one.name} frozen for ${ms} ms`;
}

async function stalled(scene: Scene, between: Between): Promise<string> {
  const one = await victim(scene, between, between(0, 1) === 0 ? "workers" : "servers");
  one.signal("SIGUSR2");
  return `${one.name} stalls`;
}

async function postgresCrashed({ postgres }: Scene, between: Between): Promise<string> {
  const ms = between(0, 2_500);
  await postgres.kill("immediate");
  await pause(ms);
  await postgres.start();
  return `down for ${ms} ms`;
}

async function targetCrashed({ users }: Scene, between: Between): Promise<string> {
  const ms = between(0, 1_500);
  await users.kill("immediate");
  await pause(ms);
  await users.start();
  return `down for ${ms} ms`;
}

/** Somebody else takes every connection that Postgres has, and those of ours are ended. */
async function poolExhausted({ postgres }: Scene, between: Between): Promise<string> {
  const ms = between(500, 3_000);
  const taken: pg.Client[] = [];
  const take = async (): Promise<boolean> => {
    const client = new pg.Client(postgres.url);
    client.on("error", () => undefined);
    const isIn = await client.connect().then(
      () => true,
      () => false,
    );
    if (isIn) taken.push(client);
    return isIn;
  };
  while (await take());
  await taken[0]
    ?.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname <> 'noetl' and backend_type = 'client backend'`,
    )
    .catch(() => undefined);
  while (await take());
  await pause(ms);
  await Promise.all(taken.map(client => client.end().catch(() => undefined)));
  return `${taken.length} connections taken for ${ms} ms`;
}

function cut(what: "store" | "target", when: "sent" | "answered"): FaultKind["strike"] {
  return async ({ wires }, between) => {
    const times = between(1, 4);
    const plan = wires.cut[what];
    Object.assign(plan, { left: times, when });
    for (let waited = 0; plan.left > 0 && waited < 5_000; waited += 20) await pause(20);
    const done = times - plan.left;
    plan.left = 0;
    return `${done} connections cut`;
  };
}

/** A third of all appends fails as a whole with this SQLSTATE. */
function refusingAppends(code: "40P01" | "40001"): FaultKind["strike"] {
  return async ({ cluster }, between) => {
    const ms = between(500, 2_500);
    const { direct } = cluster.store;
    await ask(
      direct,
      `alter function noetl.append_events(json, json) rename to append_truly;
       create function noetl.append_events(heads json, facts json)
         returns table (accepted_id bigint, clock_ms numeric, made_ms numeric)
         language plpgsql as $$
       begin
         if random() < 0.33 then raise 'by the nemesis' using errcode = '${code}'; end if;
         return query select * from noetl.append_truly(heads, facts);
       end $$`,
    );
    await pause(ms);
    await ask(
      direct,
      `drop function noetl.append_events(json, json);
       alter function noetl.append_truly(json, json) rename to append_events`,
    );
    return `a third of the appends for ${ms} ms`;
  };
}

/** A third of the rows that playbooks write fails likewise. */
async function refusingRows({ cluster }: Scene, between: Between): Promise<string> {
  const ms = between(500, 2_500);
  const { direct } = cluster.target;
  await ask(
    direct,
    `create or replace function refuse() returns trigger language plpgsql as $$
     begin
       if random() < 0.33 then raise 'by the nemesis' using errcode = '40P01'; end if;
       return new;
     end $$;
     create trigger refusing before insert or update on effect
       for each row execute function refuse()`,
  );
  await pause(ms);
  await ask(direct, "drop trigger refusing on effect");
  return `a third of the rows for ${ms} ms`;
}

async function natsEmptied({ cluster }: Scene, between: Between): Promise<string> {
  const ms = between(0, 2_000);
  await cluster.nats.loseAll();
  await pause(ms);
  await cluster.nats.start();
  return `away for ${ms} ms`;
}

/** Connections stay open and nothing passes. */
async function natsSilent({ wires }: Scene, between: Between): Promise<string> {
  const ms = between(500, 4_000);
  wires.nats.blackhole();
  await pause(ms);
  wires.nats.heal();
  return `for ${ms} ms`;
}

async function deleted({ cluster }: Scene, what: "stream" | "consumer"): Promise<string> {
  const connection = await connect({ servers: cluster.nats.url });
  const manager = await connection.jetstreamManager();
  const gone =
    what === "stream" ? manager.streams.delete(COMMANDS) : manager.consumers.delete(COMMANDS, POOL);
  // It may not have been made again since the last fault.
  const done = await gone.catch(() => false);
  await connection.close();
  return done ? `${what} deleted` : `there was no ${what}`;
}

async function doubled({ wires }: Scene, between: Between): Promise<string> {
  const ms = between(1_000, 4_000);
  wires.isDoubled = true;
  await pause(ms);
  wires.isDoubled = false;
  return `for ${ms} ms`;
}

async function late({ wires }: Scene, between: Between): Promise<string> {
  const [ms, lateMs] = [between(1_000, 4_000), between(50, 800)];
  wires.nats.delay(lateMs);
  await pause(ms);
  wires.nats.heal();
  return `by ${lateMs} ms each way, for ${ms} ms`;
}

function upstream(kind: Exclude<Weather, "clear">): FaultKind["strike"] {
  return async ({ upstream: service }, between) => {
    const [ms, percent] = [between(500, 3_000), between(30, 100)];
    service.weather(kind, percent / 100);
    await pause(ms);
    service.weather("clear");
    return `${percent} % of the calls for ${ms} ms`;
  };
}

/** Answers come late, within the patience of who asked. */
async function slow({ upstream: service }: Scene, between: Between): Promise<string> {
  const [ms, slowMs] = [between(1_000, 3_000), between(500, 2_500)];
  service.slow(slowMs);
  await pause(ms);
  service.slow(0);
  return `by ${slowMs} ms for ${ms} ms`;
}

async function poisoned({ feeder, keeper }: Scene): Promise<string> {
  const before = keeper.restarts;
  const { status } = await feeder.poison();
  return `${keeper.restarts - before} workers died, its run ended ${status}`;
}
