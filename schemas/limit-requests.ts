/** What may be asked of rate limits while everything runs, and what is answered. */
import { z } from "zod";
import { named, time } from "./answer.ts";
import { parseRate, parseTarget, RATE_EXPECTED, TARGET_EXPECTED } from "./rate-limit.ts";

const target = z
  .string({ error: TARGET_EXPECTED })
  .refine(text => parseTarget(text) !== undefined, TARGET_EXPECTED)
  .transform(text => parseTarget(text) ?? text)
  .describe(TARGET_EXPECTED);

export const limitsSet = z
  .strictObject({
    target,
    rate: z
      .union([z.string(), z.number()], { error: RATE_EXPECTED })
      .describe(`${RATE_EXPECTED}; none spares the target from wider limits`),
    burst: z.coerce
      .number({ error: "a whole number from 1" })
      .int("a whole number from 1")
      .min(1, "a whole number from 1")
      .max(1e6, "at most a million")
      .optional()
      .describe("Calls at once after a silence; what 20 ms hold when absent"),
  })
  .refine(({ rate, burst }) => rate === "none" || parseRate(rate, burst) !== undefined, {
    path: ["rate"],
    message: RATE_EXPECTED,
  });

export const limitsClear = z.strictObject({ target });

export type LimitsSet = z.output<typeof limitsSet>;

const limit = z.object({
  target: z.string(),
  rate: z.string().describe("Such as `200/s burst 4`; none: spared from wider limits"),
  source: z
    .enum(["set", "settings"])
    .describe("settings: NOETL_RATE_LIMITS of the process that answers"),
  updated_at: time.optional(),
  updated_by: z.string().nullable().optional(),
});

export const limitSet = named("LimitSet", z.object({ target: z.string(), rate: z.string() }));
export const limitCleared = named("LimitCleared", z.object({ target: z.string() }));
export const limitList = named(
  "LimitList",
  z.object({
    limits: z.array(limit),
    paused: z
      .array(z.object({ bucket: z.string(), left_ms: z.int() }))
      .describe("Upstreams that have asked for silence"),
  }),
);
