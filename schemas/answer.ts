/** What shapes of answers are made of. */
import { z } from "zod";

/** Gives a shape a name of its own in the API's document. */
export function named<Shape extends z.ZodType>(name: string, shape: Shape): Shape {
  return shape.meta({ id: name });
}

export const jsonObject = z.record(z.string(), z.unknown());
export const time = z.iso.datetime().describe("ISO 8601, UTC");
export const playbookPath = z.string().describe("Path of the playbook in the catalog");
export const playbookVersion = z.int().describe("Version of the playbook");
