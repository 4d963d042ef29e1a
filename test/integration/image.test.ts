// What the image has in it is enough: the files that the Dockerfile copies, and what npm installs
// without development and optional packages. The container itself is not built here.
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, linkSync, mkdirSync, mkdtempSync } from "node:fs";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { needsNats } from "../support/cluster.ts";
import { natsServerBinary, startNats } from "../support/nats.ts";
import { testDatabase } from "../support/postgres.ts";
import { begin, endAll } from "../support/process.ts";
import { ROOT } from "../support/source-files.ts";

const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

interface Lock {
  packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean }>;
}

/** Paths that the last stage copies from the checkout, each under the same name. */
function copied(): string[] {
  const [, last = ""] = read("k8s/Dockerfile")
    .split(/^FROM .*\n/m)
    .slice(1);
  return [...last.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, paths = ""]) =>
    paths.split(" "),
  );
}

/** Hard links: a copy of a hundred megabytes would take longer than all that follows. */
function linkAll(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.name === "node_modules") continue; // Nested packages have entries of their own.
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkAll(source, target);
    else if (entry.isFile()) linkSync(source, target);
  }
}

describe("the image", function () {
  this.timeout(60_000);
  let folder: string;

  before(needsNats);
  before(() => {
    // On the disk of the packages, or they could not be linked.
    mkdirSync(join(ROOT, ".cache"), { recursive: true });
    folder = mkdtempSync(join(ROOT, ".cache", "image-"));
    for (const path of copied()) cpSync(join(ROOT, path), join(folder, path), { recursive: true });
    const { packages } = JSON.parse(read("package-lock.json")) as Lock;
    for (const [path, { dev, optional, devOptional }] of Object.entries(packages)) {
      if (path === "" || dev || optional || devOptional || !existsSync(join(ROOT, path))) continue;
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      linkAll(join(ROOT, path), join(folder, path));
    }
    // What an install without scripts does not bring.
    rmSync(join(folder, "node_modules/node/bin"), { recursive: true, force: true });
  });
  after(() => folder && rmSync(folder, { recursive: true }));
  afterEach(endAll);

  it("lets the builder see every file that it copies, and no more", () => {
    const seen = read("k8s/Dockerfile.dockerignore").match(/(?<=^!).*$/gm) ?? [];
    const [, first = ""] = /^COPY (.*) \.\/$/m.exec(read("k8s/Dockerfile")) ?? [];
    const wanted = new Set([...copied(), ...first.split(" ")]);
    assert.deepEqual(new Set(seen), wanted);
  });

  it("compiles at its build what a start needs", () => {
    const [, line = ""] = /^RUN (noetl validate.*)$/m.exec(read("k8s/Dockerfile")) ?? [];
    assert.notEqual(line, "");
    const command = line
      .replace(/^noetl /, `${process.execPath} cli/launcher.js `)
      .replace("&& node ", `&& ${process.execPath} `)
      .replace("/app/", `${folder}/`);
    const env = { PATH: process.env["PATH"], NODE_COMPILE_CACHE: join(folder, ".compiled") };
    const { status, stderr } = spawnSync("sh", ["-c", command], { cwd: folder, env });
    assert.equal(status, 0, String(stderr));
    assert.ok(readdirSync(join(folder, ".compiled")).length > 0);
  });

  it("starts a server that is ready, and writes nothing", async () => {
    const [bell, database] = await Promise.all([
      startNats(natsServerBinary() ?? ""),
      testDatabase(),
    ]);
    const data = join(folder, "data");
    mkdirSync(data);
    try {
      const env = { DATABASE_URL: database.url, NATS_URL: bell.url, NOETL_DATA_DIR: data };
      const entry = relative(ROOT, join(folder, "cli/launcher.js"));
      const server = begin(["server"], { ...env, NOETL_PORT: "0" }, { entry });
      const [, url = ""] = await server.says(/serves (http:\/\/\S+)\/api/);
      const health = await fetch(`${url}/health`);
      assert.equal(health.status, 200, await health.text());
      server.signal("SIGTERM");
      assert.equal((await server.ended).code, 0);
      assert.deepEqual(readdirSync(data), []);
    } finally {
      await bell.stop();
      await database.drop();
    }
  });
});
