// Protected actions are for callers of the same process: Moleculer hides them from other nodes, but
// answers whoever names them in a request of its own making.
import type { ActionHandler, ActionSchema, Context, Service, ServiceSchema } from "moleculer";
import { Errors } from "moleculer";

/** The service with protected actions that refuse requests of other nodes, on any broker. */
export function nearOnly(schema: ServiceSchema): ServiceSchema {
  const actions = Object.entries(schema.actions ?? {}).map(([name, action]) => [
    name,
    isProtected(action) ? guarded(action, `${schema.name}.${name}`) : action,
  ]);
  return { ...schema, ...(schema.actions && { actions: Object.fromEntries(actions) }) };
}

type Protected = ActionSchema & { handler: ActionHandler };

function isProtected(action: unknown): action is Protected {
  return (action as { visibility?: unknown }).visibility === "protected";
}

function guarded(schema: Protected, action: string): ActionSchema {
  return {
    ...schema,
    handler(this: Service, ctx: Context) {
      const { nodeID } = ctx.broker;
      if (ctx.nodeID === nodeID) return schema.handler.call(this, ctx) as unknown;
      return Promise.reject(new Errors.ServiceNotFoundError({ action, nodeID }));
    },
  };
}
