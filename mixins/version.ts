/** The version of this package, from the package.json above this file, built or not. */
import { existsSync, readFileSync } from "node:fs";

export function packageVersion(): string {
  // From mixins/ the file is one level up, from dist/mixins/ two.
  const places = ["../package.json", "../../package.json"];
  for (const place of places) {
    const file = new URL(place, import.meta.url);
    if (existsSync(file)) {
      return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    }
  }
  return "unknown";
}
