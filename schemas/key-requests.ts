/** What may be asked about API keys. */
import { z } from "zod";
import { API_ROLES } from "./access.ts";
import { ANONYMOUS } from "./caller.ts";

const keyName = z
  .string({ error: "a name" })
  .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/, "a name of letters, digits, _ . -")
  .refine(name => name !== ANONYMOUS, `another name: ${ANONYMOUS} is who has no key`);

export const keysCreate = z.strictObject({
  name: keyName,
  role: z.enum(API_ROLES, { error: `one of ${API_ROLES.join(", ")}` }),
});

export const keysRevoke = z.strictObject({ name: keyName });

export type KeysCreate = z.output<typeof keysCreate>;
