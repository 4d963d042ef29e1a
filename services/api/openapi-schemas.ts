/** Zod shapes as JSON Schema inside an OpenAPI document: named ones once, under components. */
import { z } from "zod";
import { isObject } from "../../schemas/json.ts";

export type Schema = Record<string, unknown>;

/** How zod calls a shape that refers to itself; z.json() is the only one here. */
const ANY_JSON = /^#\/\$defs\/__schema\d+$/;
const DEFINED = /^#\/\$defs\/(.+)$/;

export class Schemas {
  /** The named ones that were met so far. */
  readonly components: Record<string, Schema> = {};

  /** A reference to a named shape, the schema itself of any other. */
  of(shape: z.ZodType): Schema {
    const { $schema: _dialect, $defs = {}, ...schema } = z.toJSONSchema(shape, { io: "input" });
    for (const [name, definition] of Object.entries($defs)) {
      if (!name.startsWith("__schema")) this.components[name] ??= placed(definition) as Schema;
    }
    const name = shape.meta()?.id;
    if (name === undefined) return placed(schema) as Schema;
    this.components[name] ??= placed(schema) as Schema;
    return { $ref: `#/components/schemas/${name}` };
  }
}

/** With references as they are written in an OpenAPI document. */
function placed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(placed);
  if (!isObject(value)) return value;
  const { $ref, ...rest } = value;
  if (typeof $ref === "string") {
    if (ANY_JSON.test($ref)) return rest;
    return { ...rest, $ref: $ref.replace(DEFINED, "#/components/schemas/$1") };
  }
  const kept = Object.entries(value).filter(([key, inner]) => {
    // The name of a component is its key; that keys are text goes without saying in JSON.
    const isName = key === "id" && typeof inner === "string";
    return !isName && key !== "propertyNames";
  });
  return Object.fromEntries(kept.map(([key, inner]) => [key, placed(inner)]));
}
