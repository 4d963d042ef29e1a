#!/usr/bin/env node
// The `noetl` command. Plain JavaScript, because it must start on any Node: when this one cannot
// run TypeScript it hands over to the Node that the package brings along.
import { spawn } from "node:child_process";
import module, { createRequire } from "node:module";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
// Node strips types of our own checkout, but never below node_modules: there the built files run.
const entry = here.includes(`${sep}node_modules${sep}`)
  ? join(here, "..", "dist", "cli", "noetl.js")
  : join(here, "noetl.ts");

// About half of a start is compiling: what one start compiled, the next one reads.
module.enableCompileCache?.();

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major > 22 || (major === 22 && minor >= 18)) {
  await import(entry);
} else {
  handOver();
}

function handOver() {
  const node = bundledNode();
  if (!node) {
    console.error(
      `noetl needs Node 22.18 or newer, this is ${process.version}; reinstall with npm`,
    );
    process.exit(3);
  }
  const child = spawn(node, [entry, ...process.argv.slice(2)], { stdio: "inherit" });
  // The child decides when a signal ends the command; this process only passes it on.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("error", error => {
    console.error(`noetl cannot start ${node}: ${error.message}`);
    process.exit(3);
  });
  child.on("exit", (code, signal) => {
    if (signal) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else process.exit(code ?? 1);
  });
}

function bundledNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve("node/package.json");
    const file = process.platform === "win32" ? "node.exe" : "node";
    return join(dirname(manifest), "bin", file);
  } catch {
    return undefined;
  }
}
