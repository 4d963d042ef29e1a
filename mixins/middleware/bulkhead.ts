// Moleculer's own bulkhead around a part of a handler, so that a rate limit lies outside its queue:
// who waits for a turn takes no place in it. Moleculer wraps whole handlers only.
import * as moleculer from "moleculer";
import type { Context, ServiceBroker } from "moleculer";

/** How many runs of one action a process executes at once, and how many more may wait. */
export interface BulkheadLimits {
  concurrency: number;
  max_queue_size: number;
}

type Handler<Answer> = (ctx: Context) => Promise<Answer>;

/** What of the middleware is used; Moleculer's types do not show it. */
interface BulkheadMiddleware {
  localAction<Answer>(
    this: ServiceBroker,
    handler: Handler<Answer>,
    action: object,
  ): Handler<Answer>;
}

const { Middlewares } = moleculer as unknown as {
  Middlewares: { Bulkhead: (broker: ServiceBroker) => BulkheadMiddleware };
};

/**
 * The handler, with at most `concurrency` of its runs at once for each broker; a full queue is
 * Moleculer's QueueIsFullError. Numbers are in the broker's metrics, as of any bulkhead.
 */
export function inBulkhead<Answer>(
  { concurrency, max_queue_size }: BulkheadLimits,
  handler: Handler<Answer>,
): Handler<Answer> {
  const wrapped = new WeakMap<ServiceBroker, Handler<Answer>>();
  return function bulkheaded(ctx: Context): Promise<Answer> {
    const { broker, action, service } = ctx;
    let run = wrapped.get(broker);
    if (!run) {
      const bulkhead = { enabled: true, concurrency, maxQueueSize: max_queue_size };
      const limited = { name: action?.name, service, bulkhead };
      run = Middlewares.Bulkhead(broker).localAction.call(
        broker,
        handler as never,
        limited,
      ) as never;
      wrapped.set(broker, run as Handler<Answer>);
    }
    return run(ctx);
  };
}
