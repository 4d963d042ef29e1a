// Builds `dist/`: our TypeScript as JavaScript, and beside it the files that the code reads.
import { spawnSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The rooms that are part of the package; tests and benches are not. */
const ROOMS = ["schemas", "mixins", "services", "cli", "examples"];

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);
rmSync("dist", { recursive: true, force: true });

const tsc = fileURLToPath(import.meta.resolve("typescript/lib/tsc.js"));
const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], {
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);

for (const room of ROOMS) {
  cpSync(room, `dist/${room}`, { recursive: true, filter: source => !/\.m?ts$/.test(source) });
}
