// The projection: keeps noetl.execution true to the log, by hints at once and by following the log surely.
import type { Context, Service, ServiceSchema } from "moleculer";
import type { Runtime } from "../../mixins/runtime.ts";
import { followLog, readExecution, type LogPosition } from "../../mixins/postgres/event.ts";
import {
  deleteExecution,
  holdShard,
  releaseShard,
  saveCheckpoint,
  writeExecutions,
  type ShardClaim,
} from "../../mixins/postgres/execution.ts";
import { Rejected, Unavailable } from "../../schemas/errors.ts";
import { executionId, validated } from "../../schemas/requests.ts";
import { Projector, rebuildRow } from "./projector.ts";

/** One shard: every execution. Its holder is fenced by an epoch. */
const SHARD = 0;
const LEASE_MS = 5_000;
/** How often the log is followed, and the longest a hint waits to be written. */
const FOLLOW_MS = 500;
const WRITE_MS = 40;
const FOLLOW_PAGE = 2_000;

/** The service `projection` over a process's runtime. */
export default function projectionService(runtime: Runtime): ServiceSchema {
  const { clock, database, feed, nodeId } = runtime;
  const projector = new Projector(database);
  let claim: ShardClaim | undefined;
  let position: LogPosition = { tx: "0", event_id: "0" };
  let renewAt = 0;
  let stopped = false;
  let wake = () => {};
  let running: Promise<void> = Promise.resolve();
  let unsubscribe = () => {};

  async function run(service: Service): Promise<void> {
    let followAt = 0;
    while (!stopped) {
      try {
        if (clock.now() >= renewAt) await renew();
        if (claim) {
          await projector.foldQueue();
          if (clock.now() >= followAt) {
            await follow(claim);
            followAt = clock.now() + FOLLOW_MS;
          }
          await write(claim);
        }
      } catch (error) {
        service.logger.warn({ err: error }, "projection.retry_later");
        // What was folded may not be what was written: start again from the rows.
        projector.forget();
        await clock.sleep(FOLLOW_MS);
      }
      await pause();
    }
  }

  async function pause(): Promise<void> {
    if (stopped) return;
    await clock.sleep(WRITE_MS);
    if (projector.waiting > 0 || stopped) return;
    await new Promise<void>(resolve => {
      wake = resolve;
      clock.after(FOLLOW_MS, resolve);
    });
  }

  async function renew(): Promise<void> {
    const held = await holdShard(database, { shard: SHARD, holder: nodeId, leaseMs: LEASE_MS });
    renewAt = clock.now() + LEASE_MS / 3;
    if (held && claim?.epoch !== held.epoch) {
      projector.forget();
      position = held.position;
    }
    claim = held;
  }

  async function follow(held: ShardClaim): Promise<void> {
    for (;;) {
      const page = await followLog(database, position, FOLLOW_PAGE);
      if (page.events.length === 0) return;
      await projector.fold(page.events);
      if (!(await write(held))) return;
      await saveCheckpoint(database, held, page.position);
      position = page.position;
      if (page.events.length < FOLLOW_PAGE || stopped) return;
    }
  }

  async function write(held: ShardClaim): Promise<boolean> {
    const written = await projector.write(held);
    if (written) {
      if (written.length > 0) runtime.shown.push(new Set(written));
      return true;
    }
    projector.forget();
    claim = undefined;
    renewAt = clock.now() + LEASE_MS;
    return false;
  }

  async function rebuild(execution_id: string) {
    if (!claim) throw new Unavailable("another node keeps the projection; ask there");
    const row = rebuildRow(await readExecution(database, execution_id));
    if (!row) throw new Rejected(`there is no execution ${execution_id}`, 404, { execution_id });
    await deleteExecution(database, execution_id);
    projector.forget();
    await writeExecutions(database, claim, [row]);
    return { execution_id, version: row.version, status: row.status };
  }

  return {
    name: "projection",
    actions: {
      /** Makes an execution's row anew from its events alone. */
      rebuild: { handler: validated(executionId, (_ctx: Context, p) => rebuild(p.execution_id)) },
    },
    started(this: Service) {
      unsubscribe = feed.subscribe(events => {
        if (!claim) return;
        projector.hint(events);
        wake();
      });
      running = run(this);
      return Promise.resolve();
    },
    async stopped(this: Service) {
      stopped = true;
      unsubscribe();
      wake();
      await running;
      if (!claim) return;
      await projector
        .foldQueue()
        .then(() => claim && projector.write(claim))
        .then(() => claim && releaseShard(database, claim))
        .catch((error: unknown) => this.logger.warn({ err: error }, "projection.stop"));
    },
  };
}
