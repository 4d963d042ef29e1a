// Restarts what ends, as Kubernetes does: the same name, the same port, a new incarnation.
import { setTimeout as pause } from "node:timers/promises";
import type { Cluster, ClusterServer, ClusterWorker } from "../cluster.ts";

type Member = ClusterServer | ClusterWorker;

/** Before something that has ended is begun again, and between two tries. */
const RESTART_MS = 250;

export class Keeper {
  readonly #cluster: Cluster;
  readonly #up = new Set<Member>();
  /** All that was ever begun: what they have said is evidence. */
  readonly members: Member[] = [];
  restarts = 0;
  #isOver = false;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    for (const one of [...cluster.servers, ...cluster.workers]) this.#watch(one);
  }

  #watch(one: Member): void {
    this.#up.add(one);
    this.members.push(one);
    void one.ended.then(() => {
      this.#up.delete(one);
      if (!this.#isOver) void this.#again(one);
    });
  }

  async #again(one: Member): Promise<void> {
    const list: Member[] = "user" in one ? this.#cluster.workers : this.#cluster.servers;
    const place = list.indexOf(one);
    while (!this.#isOver) {
      await pause(RESTART_MS);
      // Without a database it does not start: it is begun again, as often as it takes.
      const revived = await this.#cluster.revive(one).then(
        () => true,
        () => false,
      );
      if (!revived) continue;
      this.restarts += 1;
      return this.#watch(list[place]!);
    }
  }

  /** Those that run now. */
  servers(): ClusterServer[] {
    return [...this.#up].filter((one): one is ClusterServer => !("user" in one));
  }

  workers(): ClusterWorker[] {
    return [...this.#up].filter((one): one is ClusterWorker => "user" in one);
  }

  /** Nothing that ends from here on is begun again. */
  stop(): void {
    this.#isOver = true;
  }
}
