/** A service that uses NoETL as it uses any other service: by its actions and events. */
import { readFile } from "node:fs/promises";
import type { Context, ServiceSchema } from "moleculer";

/** How long a caller waits for the whole playbook, milliseconds. */
const PATIENCE_MS = 30_000;

/** The service `onboarding`: `welcome` runs a playbook, and its end is heard as an event. */
export default {
  name: "onboarding",
  actions: {
    welcome: {
      params: { names: { type: "array", items: "string" } },
      async handler(ctx: Context<{ names: string[] }>) {
        const content = await readFile(new URL("welcome.yaml", import.meta.url), "utf8");
        const { path } = await ctx.call<{ path: string }, object>("catalog.register", { content });
        const started = { path, payload: { names: ctx.params.names } };
        // ctx.meta.tenant_id of this call goes with the execution to users.create.
        const { execution_id } = await ctx.call<{ execution_id: string }, object>(
          "executions.start",
          started,
        );
        const waited = { execution_id, timeout_ms: PATIENCE_MS };
        const { status, result } = await ctx.call<{ status: string; result: unknown }, object>(
          "executions.wait",
          waited,
        );
        return { execution_id, status, result };
      },
    },
  },
  events: {
    "execution.completed": {
      handler(ctx: Context<{ execution_id: string; path: string; steps: number }>) {
        const { path, steps } = ctx.params;
        console.log(`onboarding: heard that ${path} is completed, ${steps} steps`);
      },
    },
  },
} satisfies ServiceSchema;
