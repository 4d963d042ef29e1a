// Results in the runtime's own database: what one process keeps, every other one can read.
import { Rejected } from "../../schemas/errors.ts";
import type { Query } from "../postgres/index.ts";
import { readValue, writeValue } from "../postgres/result-value.ts";
import type { Tier } from "./index.ts";

/** The largest value a row is asked to hold. */
const VALUE_BYTES_MAX = 128 * 1024 * 1024;

export function createDatabaseTier(database: Query): Tier {
  return {
    name: "postgres",
    async write(key, bytes) {
      if (bytes.length > VALUE_BYTES_MAX) {
        const limit = `the tier 'postgres' takes ${VALUE_BYTES_MAX}`;
        throw new Rejected(`the result '${key}' has ${bytes.length} bytes, ${limit}`, 413);
      }
      const execution_id = key.split("/")[0] ?? "";
      await writeValue(database, { key, execution_id, bytes });
    },
    async read(key) {
      const bytes = await readValue(database, key);
      if (bytes) return bytes;
      throw new Rejected(`the result '${key}' is no longer kept`, 404, { ref: key });
    },
  };
}
