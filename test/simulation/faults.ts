// What may befall a world between two steps, and how it passes.
import { bury } from "./memory-store.ts";
import type { Member, Role, World } from "./world.ts";

/** Strikes; false when there is nobody that it could strike. */
type Fault = (world: World) => boolean;

export const FAULTS: Record<string, Fault> = {
  "server killed": world => kill(world, "server"),
  "worker killed": world => kill(world, "worker"),
  "worker killed and buried": world => kill(world, "worker", { isBuried: true }),
  "server stopped": world => leave(world, "server"),
  "worker drained": world => leave(world, "worker"),
  /** The next one that commits dies before it hears of it. */
  "killed after commit"(world) {
    world.committed = owner => {
      const member = world.members.get(owner.name);
      if (member?.owner !== owner || !owner.alive) return;
      world.committed = () => {};
      die(world, member);
    };
    return true;
  },
  frozen(world) {
    const one = someone(world);
    if (!one) return false;
    one.owner.frozenUntil = world.scheduler.now + world.scheduler.between(200, 15_000);
    return true;
  },
  "clock stands"(world) {
    const one = someone(world);
    if (!one) return false;
    one.owner.stoodAt = world.scheduler.now;
    passes(world, 8_000, () => (one.owner.stoodAt = undefined));
    return true;
  },
  partition(world) {
    const [one, other] = [someone(world)?.owner.name, someone(world)?.owner.name ?? "nats"];
    if (one === undefined) return false;
    const far = one === other ? "nats" : other;
    world.weather.cut(one, far);
    if (world.scheduler.chance(0.5)) part(world, one, far);
    passes(world, 10_000, () => {
      world.weather.heal(one, far);
      meet(world, one, far);
    });
    return true;
  },
  /** Two servers believe each that it owns everything. */
  "two owners"(world) {
    const servers = alive(world, "server").map(one => one.owner.name);
    const [one, other] = servers;
    if (one === undefined || other === undefined) return false;
    part(world, one, other);
    passes(world, 10_000, () => meet(world, one, other));
    return true;
  },
  "database away"(world) {
    world.weather.isDatabaseAway = true;
    passes(world, 3_000, () => (world.weather.isDatabaseAway = false));
    return true;
  },
  /** A worker that works and reports, and cannot show that it lives. */
  "worker without database"(world) {
    const one = pick(world, alive(world, "worker"))?.owner.name;
    if (one === undefined) return false;
    world.weather.cutOff.add(one);
    passes(world, 15_000, () => world.weather.cutOff.delete(one));
    return true;
  },
  "nats away"(world) {
    world.weather.isNatsAway = true;
    world.bell.empty();
    passes(world, 5_000, () => (world.weather.isNatsAway = false));
    return true;
  },
  "rings lost"(world) {
    world.bell.empty();
    return true;
  },
  /** A transaction somewhere on the cluster holds the log's watermark back. */
  "long transaction"(world) {
    const tx = world.tables.begin();
    passes(world, 10_000, () => world.tables.end(tx));
    return true;
  },
  /** A worker's row looks old although it lives. */
  "lease expired"(world) {
    const rows = [...world.tables.workers.values()].filter(row => row.status !== "gone");
    const row = pick(world, rows);
    if (!row) return false;
    row.seen_at -= 60_000;
    return true;
  },
};

export const FAULT_NAMES = Object.keys(FAULTS);

/** The world is healed, and nothing befalls it any more. */
export function makePeace(world: World): void {
  world.weather.clear();
  world.committed = () => {};
  for (const { owner } of world.members.values()) {
    owner.frozenUntil = 0;
    owner.stoodAt = undefined;
  }
  for (const member of [...world.members.values()]) {
    if (!member.owner.alive) world.boot(member.owner.name, member.role);
  }
  const names = [...world.members.keys()];
  for (const one of names) for (const other of names) meet(world, one, other);
}

function pick<T>(world: World, from: T[]): T | undefined {
  return from[Math.floor(world.scheduler.random() * from.length)];
}

function alive(world: World, role?: Role): Member[] {
  return [...world.members.values()].filter(
    one => one.owner.alive && (role ? one.role === role : one.role !== "client"),
  );
}

const someone = (world: World) => pick(world, alive(world));

function passes(world: World, ms: number, undo: () => void): void {
  world.scheduler.after(world.scheduler.between(50, ms), "passes", undo);
}

function part(world: World, one: string, other: string): void {
  world.members.get(one)?.broker.known.delete(other);
  world.members.get(other)?.broker.known.delete(one);
}

function meet(world: World, one: string, other: string): void {
  const [here, there] = [world.members.get(one), world.members.get(other)];
  if (there?.owner.alive) here?.broker.known.add(other);
  if (here?.owner.alive) there?.broker.known.add(one);
}

/** Ends a process between two of its steps; another one takes its name after a while. */
function kill(world: World, role: Role, { isBuried = false } = {}): boolean {
  const member = pick(world, alive(world, role));
  if (!member) return false;
  die(world, member);
  if (isBuried) {
    const row = world.tables.workers.get(member.owner.name);
    if (row) bury(world.tables, [row]);
  }
  return true;
}

function die(world: World, { owner, role }: Member): void {
  owner.alive = false;
  const { scheduler } = world;
  for (const { broker } of world.members.values()) {
    const notice = () => {
      if (!world.members.get(owner.name)?.owner.alive) broker.known.delete(owner.name);
    };
    scheduler.after(scheduler.between(50, 6_000), "notices", notice);
  }
  scheduler.after(scheduler.between(20, 6_000), "restart", () => {
    if (!world.members.get(owner.name)?.owner.alive) world.boot(owner.name, role);
  });
}

/** SIGTERM: it finishes what it has, and is gone. */
function leave(world: World, role: Role): boolean {
  const member = pick(world, alive(world, role));
  if (!member || member.broker.stopping) return false;
  const { scheduler } = world;
  const go = () => void member.broker.stop().then(() => member.owner.alive && die(world, member));
  scheduler.after(0, "stop", go, member.owner);
  return true;
}
