/** `worker.capacity`: what a worker can do and has room for; a Moleculer event, never a row. */
import { z } from "zod";
import { isWord, OFFERS_MAX } from "./needs.ts";

const name = z.string().min(1).max(256);
const count = z.int().min(0).max(1_000_000);

export const workerCapacity = z.object({
  worker_id: name,
  incarnation: name,
  status: z.enum(["ready", "draining"]),
  slots: count,
  available_slots: count,
  /** Of them, those that a command of the database class could have. */
  available_db_slots: count,
  active_tasks: count,
  /** It takes commands that it has not asked for; absent of an older build. */
  takes: z.boolean().optional(),
  capabilities: z.array(z.string().refine(isWord)).max(OFFERS_MAX),
  labels: z.array(z.string().refine(isWord)).max(OFFERS_MAX),
});

export type WorkerCapacity = z.output<typeof workerCapacity>;

/** The name of the event. */
export const CAPACITY_EVENT = "worker.capacity";
