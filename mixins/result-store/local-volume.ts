// Results on a local volume: one file a value, written beside and renamed, never half there.
import { mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { Rejected } from "../../schemas/errors.ts";
import type { Tier } from "./index.ts";

let serial = 0;

/** Keeps bytes under `root`; keys that would leave it are refused. */
export function createLocalVolume(root: string): Tier {
  const base = resolve(root);

  function pathOf(key: string): string {
    const parts = key.split("/").map(part => encodeURIComponent(decodeURIComponent(part)));
    const path = resolve(join(base, ...parts)) + ".json";
    if (!path.startsWith(base + sep) || parts.some(part => part === "." || part === "..")) {
      throw new Rejected(`'${key}' is no name of a result`, 422);
    }
    return path;
  }

  return {
    name: "local",
    async write(key, bytes) {
      const path = pathOf(key);
      const beside = `${path}.${process.pid}.${(serial += 1)}`;
      await mkdir(dirname(path), { recursive: true });
      const file = await open(beside, "w");
      try {
        await file.writeFile(bytes);
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(beside, path);
    },
    async read(key) {
      try {
        return await readFile(pathOf(key));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        throw new Rejected(`the result '${key}' is no longer kept`, 404, { ref: key });
      }
    },
  };
}
