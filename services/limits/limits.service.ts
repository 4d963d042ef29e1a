// Rate limits while everything runs: shown, set and cleared, and news of them heard.
import type { Context, Service, ServiceSchema } from "moleculer";
import {
  clearLimit,
  listLimits,
  pausedRates,
  setLimit,
  type SetLimit,
} from "../../mixins/postgres/rate.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { requestedBy } from "../../schemas/caller.ts";
import { Rejected } from "../../schemas/errors.ts";
import { limitsClear, limitsSet, type LimitsSet } from "../../schemas/limit-requests.ts";
import { parseRate, showRate, TARGET_MAX_CHARS, type Limit } from "../../schemas/rate-limit.ts";
import { LIMITS, nothing, validated } from "../../schemas/requests.ts";

/**
 * The service `limits` over a process's runtime, wherever something decides or works. A change is
 * in the database first; the news of it only makes it quicker than the two seconds after which each
 * process looks by itself.
 */
export default function limitsService(runtime: LimitsNeed): ServiceSchema {
  const { database, limiter } = runtime;
  return {
    name: "limits",
    actions: {
      /** → `{limits, paused}`: set ones and those of the settings, and upstreams that wait. */
      list: { handler: validated(nothing, () => list(runtime)) },
      /** `{target, rate, burst?}` → `{target, rate}`. Replaces. */
      set: {
        handler: validated(limitsSet, async function (this: Service, ctx: Context, given) {
          const { target } = given;
          const rate = rateOf(given);
          const { requested_by } = requestedBy(ctx);
          await setLimit(database, { target, rate }, requested_by);
          this.logger.info({ target, rate: showRate(rate), requested_by }, "limit.set");
          tell(this);
          return { target, rate: showRate(rate) };
        }),
      },
      /** `{target}` → `{target}`. Rejected 404 when none was set. */
      clear: {
        handler: validated(limitsClear, async function (this: Service, ctx: Context, { target }) {
          if (!(await clearLimit(database, target))) throw noLimit(runtime, target);
          this.logger.info({ target, ...requestedBy(ctx) }, "limit.cleared");
          tell(this);
          return { target };
        }),
      },
    },
    events: {
      "limits.changed": () => limiter.forget(),
      "limits.paused": (ctx: Context<{ bucket?: unknown; ms?: unknown }>) => {
        const { bucket, ms } = ctx.params ?? {};
        if (typeof bucket !== "string" || bucket.length > TARGET_MAX_CHARS) return;
        if (typeof ms === "number" && ms > 0) limiter.heard(bucket, ms);
      },
    },
    created(this: Service) {
      const { broker } = this;
      limiter.announce = (bucket, ms) => void broker.broadcast("limits.paused", { bucket, ms });
    },
  };
}

type LimitsNeed = Pick<Runtime, "database" | "limiter" | "settings">;

function tell({ broker }: Service): void {
  void broker.broadcast("limits.changed", {});
}

function rateOf({ rate, burst }: LimitsSet): Limit["rate"] {
  return rate === "none" ? null : (parseRate(rate, burst) ?? null);
}

async function list({ database, settings }: LimitsNeed) {
  const stored = await listLimits(database, LIMITS.listMax);
  const set = new Set(stored.map(({ target }) => target));
  const others = settings.limits.rates.filter(({ target }) => !set.has(target));
  const paused = await pausedRates(database, LIMITS.listMax);
  return {
    limits: [...stored.map(toView), ...others.map(fixedView)],
    paused: [...paused].map(([bucket, ms]) => ({ bucket, left_ms: Math.ceil(ms) })),
  };
}

function toView({ target, rate, updated_at, updated_by }: SetLimit) {
  return { target, rate: showRate(rate), source: "set", updated_at, updated_by };
}

function fixedView({ target, rate }: Limit) {
  return { target, rate: showRate(rate), source: "settings" };
}

function noLimit({ settings }: LimitsNeed, target: string): Rejected {
  const isFixed = settings.limits.rates.some(limit => limit.target === target);
  const hint = isFixed
    ? "; it is one of NOETL_RATE_LIMITS: set it to none to spare the target"
    : "; 'noetl limits list' shows them";
  return new Rejected(`no limit is set for ${target}${hint}`, 404);
}
