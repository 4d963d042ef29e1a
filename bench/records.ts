// The two ends of the main job: an API that answers at once, in a process of its own, a table, and
// the bare work between them with no engine at all.
import { spawn } from "node:child_process";
import { Pool } from "undici";
import { openDatabase } from "../mixins/postgres/index.ts";

const SERVER = `
require("node:http").createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  const id = request.url.slice(1);
  response.end(JSON.stringify({ id, title: "record " + id }));
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });`;

export interface Records {
  api: string;
  /** Empties the table. */
  reset(): Promise<void>;
  count(): Promise<number>;
  /** GET and INSERT for each of n records, so many at a time. */
  bare(n: number, atOnce: number): Promise<void>;
  close(): Promise<void>;
}

/** `url` is a database in which the table may be made. */
export async function openRecords(url: string, connections: number): Promise<Records> {
  const child = spawn(process.execPath, ["-e", SERVER], { stdio: ["ignore", "pipe", "inherit"] });
  const port = await new Promise<string>(resolve =>
    child.stdout.once("data", data => resolve(String(data).trim())),
  );
  const api = `http://127.0.0.1:${port}`;
  const pool = openDatabase({ url, size: connections });
  await pool.query("create table if not exists fetched (id integer primary key, title text)");
  return {
    api,
    async reset() {
      await pool.query("truncate fetched");
    },
    async count() {
      const { rows } = await pool.query<{ n: string }>("select count(*) as n from fetched");
      return Number(rows[0]?.n);
    },
    async bare(n, atOnce) {
      const client = new Pool(api, { connections: atOnce });
      let next = 0;
      async function one(): Promise<void> {
        while (next < n) {
          const id = next;
          next += 1;
          const { body } = await client.request({ method: "GET", path: `/${id}` });
          const { title } = (await body.json()) as { title: string };
          await pool.query("insert into fetched (id, title) values ($1, $2)", [id, title]);
        }
      }
      await Promise.all(Array.from({ length: atOnce }, one));
      await client.close();
    },
    async close() {
      child.kill();
      await pool.close();
    },
  };
}
