// A CPU profile of the bench's own process: where the time of Node goes, by function.
import { Session } from "node:inspector/promises";
import { relative } from "node:path";

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
}

const SHOWN = 25;

/**
 * Starts profiling; the returned function stops it and prints the functions with the most self
 * time.
 */
export async function startProfile(): Promise<() => Promise<void>> {
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 500 });
  await session.post("Profiler.start");
  return async () => {
    const { profile } = await session.post("Profiler.stop");
    const {
      nodes,
      samples = [],
      timeDeltas = [],
    } = profile as unknown as {
      nodes: ProfileNode[];
      samples?: number[];
      timeDeltas?: number[];
    };
    const names = new Map(nodes.map(node => [node.id, nameOf(node)]));
    const self = new Map<string, number>();
    for (const [index, id] of samples.entries()) {
      const name = names.get(id) ?? "?";
      self.set(name, (self.get(name) ?? 0) + (timeDeltas[index] ?? 0));
    }
    const total = [...self.values()].reduce((sum, us) => sum + us, 0);
    console.log("\nself time of this process");
    for (const [name, us] of [...self].sort((a, b) => b[1] - a[1]).slice(0, SHOWN)) {
      console.log(`${((us / total) * 100).toFixed(1).padStart(5)}%  ${name}`);
    }
  };
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  const file = url.startsWith("file://") ? relative(process.cwd(), new URL(url).pathname) : url;
  return `${functionName || "(anonymous)"}  ${file}${file ? `:${lineNumber + 1}` : ""}`;
}
