/** What a worker says of a frame, as the doors of actors and of HTTP check it. */
import { z } from "zod";
import type { FrameReport, LeftRows } from "./command.ts";
import { resultReference } from "./events.ts";
import type { Json } from "./json.ts";

/**
 * Fields of a `FrameReport`; one that is missing here would be dropped at the door. `row` is how
 * far the door looks into what is only carried.
 */
export function frameReport<Row extends z.ZodType<Json>>(row: Row) {
  const left = {
    rows: z.array(row).optional(),
    reference: resultReference.optional(),
  } satisfies Record<keyof LeftRows, z.ZodType>;
  return {
    ok: z.string(),
    failed: z.string(),
    final: z.boolean(),
    drained: z.boolean().optional(),
    broke: z.int().min(0).optional(),
    left: z.object(left).optional(),
  } satisfies Record<keyof FrameReport, z.ZodType>;
}
