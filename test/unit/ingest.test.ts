// How many outcomes a server takes in at a time.
import { strict as assert } from "node:assert";
import { createIngest } from "../../mixins/ingest.ts";
import type { Busy } from "../../schemas/errors.ts";

describe("the intake of outcomes", () => {
  it("is bounded: who finds no room is told to come later, and then finds it", async () => {
    const ingest = createIngest(10);
    const { promise, resolve } = Promise.withResolvers<string>();
    const first = ingest.run(8, () => promise);
    await assert.rejects(
      ingest.run(3, () => assert.fail("there was no room")),
      (error: Busy) => error.type === "BUSY" && Number(error.data?.["retry_after_ms"]) > 0,
    );
    assert.equal(await ingest.run(2, () => Promise.resolve("fits")), "fits");
    assert.deepEqual([ingest.held, ingest.refused], [8, 1]);
    resolve("decided");
    assert.equal(await first, "decided");
    assert.equal(await ingest.run(10, () => Promise.resolve("fits")), "fits");
  });

  it("takes what is larger than it, when it is empty: it would never fit", async () => {
    const ingest = createIngest(10);
    assert.equal(await ingest.run(11, () => Promise.resolve("alone")), "alone");
    await assert.rejects(
      ingest.run(1, () => Promise.reject(new Error("failed"))),
      /failed/,
    );
    assert.equal(ingest.held, 0);
  });
});
