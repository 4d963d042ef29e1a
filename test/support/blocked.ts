// Work that stands still until a test lets it go on: statements that wait for a lock of the test's.
import pg from "pg";
import { ask, until } from "./actors.ts";

export const HEAD = `apiVersion: noetl.io/v2
kind: Playbook
`;

/** `n` statements that each wait for the lock, every one a command of its own. */
export const BLOCKED = `${HEAD}metadata: {name: blocked, path: test/blocked}
workload: {n: 10}
workflow:
  - step: each
    loop:
      in: "{{ range(n) | list }}"
      iterator: i
      spec: {mode: parallel, max_in_flight: 1000, policy: {exec: distributed}}
    tool: {kind: postgres, auth: pg_k8s, query: "insert into gate values ($1)", params: ["{{ i }}"]}
`;

/** Two steps without a database. */
export const QUICK = `${HEAD}metadata: {name: quick, path: test/quick}
workflow:
  - {step: one, tool: {kind: noop}, next: {arcs: [{step: two}]}}
  - {step: two, tool: {kind: noop}}
`;

export interface Block {
  /** Statements that stand before the lock now. */
  waiting(): Promise<number>;
  /** Lets all go on. */
  open(): Promise<void>;
  rows(): Promise<number>;
}

/** Makes the table that nobody can write to until `open`. */
export async function block(url: string): Promise<Block> {
  await ask(url, "create table gate (i integer)");
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  await holder.query("begin");
  await holder.query("lock table gate in share mode");
  return {
    async waiting() {
      const [row] = await ask<{ n: number }>(
        url,
        `select count(*)::integer as n from pg_locks l join pg_class c on c.oid = l.relation
         where c.relname = 'gate' and not l.granted`,
      );
      return row?.n ?? 0;
    },
    open: () => holder.end(),
    async rows() {
      const [row] = await ask<{ n: number }>(url, "select count(distinct i)::integer n from gate");
      return row?.n ?? 0;
    },
  };
}

/** Waits until so many statements stand before the lock, and no more come. */
export async function stands(block: Block, count: number): Promise<void> {
  await until(async () => (await block.waiting()) >= count, 20_000);
}
