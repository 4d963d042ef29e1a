// The way of one process to the database: every statement is a step of its own, and so is its
// answer; either may be lost.
import { Unavailable } from "../../schemas/errors.ts";
import { EPOCH_MS } from "./globals.ts";
import type { Link } from "./memory-store.ts";
import type { MemoryTables } from "./memory-tables.ts";
import type { Owner, Scheduler } from "./scheduler.ts";
import type { Weather } from "./weather.ts";

export interface Way {
  scheduler: Scheduler;
  weather: Weather;
  tables: MemoryTables;
  /** A write is committed, and nobody knows yet. */
  committed: () => void;
}

/** How long a driver waits before it says that nobody answers. */
const SILENCE_MS = 200;

export function createLink({ scheduler, weather, tables, committed }: Way, owner: Owner): Link {
  let awayAt = -Infinity;

  function away(kind: string, reject: (error: Error) => void): void {
    const answer = () => {
      awayAt = scheduler.now;
      reject(new Unavailable("Postgres cannot be reached"));
    };
    scheduler.after(scheduler.between(1, SILENCE_MS), `lost:${kind}`, answer, owner);
  }

  /** A dead process's statement may still be carried out, or not. */
  const isDropped = () => !owner.alive && scheduler.chance(0.5);
  const isCutOff = () => weather.isDatabaseAway || weather.cutOff.has(owner.name);
  const isAway = () => isCutOff() || weather.strikes("away before");

  function answer<T>(kind: string, value: T, settle: PromiseWithResolvers<T>): void {
    if (isCutOff() || weather.strikes("away after")) {
      return away(kind, settle.reject);
    }
    const ms = weather.delay();
    scheduler.after(ms, `answer:${kind}`, () => settle.resolve(value), owner);
  }

  return {
    run<T>(kind: string, work: () => T): Promise<T> {
      const settle = Promise.withResolvers<T>();
      scheduler.after(weather.delay(), `store:${kind}`, () => {
        if (isDropped()) return;
        if (isAway()) return away(kind, settle.reject);
        answer(kind, work(), settle);
      });
      return settle.promise;
    },
    write<T>(kind: string, begin: () => number, commit: (tx: number, at: number) => T) {
      const settle = Promise.withResolvers<T>();
      scheduler.after(weather.delay(), `begin:${kind}`, () => {
        if (isDropped()) return;
        if (isAway()) return away(kind, settle.reject);
        const tx = begin();
        const at = EPOCH_MS + scheduler.now;
        scheduler.after(weather.commitDelay(), `store:${kind}`, () => {
          if (isDropped()) return tables.end(tx);
          const value = commit(tx, at);
          tables.end(tx);
          committed();
          answer(kind, value, settle);
        });
      });
      return settle.promise;
    },
    sinceAwayMs: () => scheduler.now - awayAt,
  };
}
