// The public playbooks that lie beside this project, where they do.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Env } from "./process.ts";
import { ROOT } from "./source-files.ts";

export const PUBLIC = join(ROOT, "../shared/playbooks");

/** Where they are absent: skips this test, or in a suite says so in place of its tests. */
export function arePublicPlaybooksHere(test?: Mocha.Context): boolean {
  if (existsSync(PUBLIC)) return true;
  if (test) test.skip();
  it.skip(`the public playbooks are not here: ${PUBLIC} is absent`);
  return false;
}

/** The aliases that public playbooks use, all naming this database. */
export function credentialsFor(url: string): Env {
  const { hostname, port, username, password, pathname } = new URL(url);
  const data = {
    db_host: hostname,
    db_port: Number(port),
    db_user: username,
    db_password: decodeURIComponent(password),
    db_name: pathname.slice(1),
  };
  const text = JSON.stringify({ type: "postgres", data });
  const aliases = ["PG_K8S", "PG_LOCAL", "PG_TEST", "PG_NOETL_K8S"];
  return Object.fromEntries(aliases.map(alias => [`NOETL_CREDENTIAL_${alias}`, text]));
}

/** The embedded Postgres of a data folder, while it runs. */
export async function embeddedUrl(folder: string): Promise<string> {
  const read = async (name: string) => (await readFile(join(folder, name), "utf8")).trim();
  const [port, password] = await Promise.all([read("postgres.port"), read("postgres.password")]);
  return `postgres://postgres:${password}@127.0.0.1:${port}/noetl`;
}
