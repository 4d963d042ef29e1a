/** A service that knows nothing of NoETL but this: the same idempotency key is the same request. */
import { Errors } from "moleculer";
import type { Context, ServiceSchema } from "moleculer";

interface User {
  id: number;
  name: string;
  tenant: string;
}

interface Meta {
  /** The same for every repetition of one durable step. */
  idempotency_key?: string;
  /** Carried from whoever started the playbook. */
  tenant_id?: string;
}

/** In a real service this is a table with a unique column for the key. */
const users = new Map<string, User>();
let answersToLose = 1;

/** The service `users`: `create` loses its first answer, as a process that dies would. */
export default {
  name: "users",
  actions: {
    create: {
      params: { name: "string|min:1" },
      handler(ctx: Context<{ name: string }, Meta>): User {
        const { name } = ctx.params;
        const key = ctx.meta.idempotency_key ?? ctx.id;
        const known = users.get(key);
        if (known) {
          console.log(`users: ${name} is asked for again, and is user ${known.id} already`);
          return known;
        }
        const user = { id: users.size + 1, name, tenant: ctx.meta.tenant_id ?? "none" };
        users.set(key, user);
        console.log(`users: created ${user.id} ${name} of ${user.tenant}`);
        if (answersToLose-- > 0) {
          throw new Errors.MoleculerServerError("the answer is lost", 503, "ANSWER_LOST");
        }
        return user;
      },
    },
    count: { handler: () => ({ users: users.size }) },
  },
} satisfies ServiceSchema;
