// The example app: what its README promises to a new user, in a process of its own.
import { strict as assert } from "node:assert";
import { testNodes, type TestNodes } from "../support/nodes.ts";
import { testDatabase } from "../support/postgres.ts";
import { begin, endAll, newFolder, type Env } from "../support/process.ts";

const APP = "examples/moleculer-app/app.ts";

/** Runs the app to its end and checks the story it tells. */
async function tellsItsStory(env: Env): Promise<void> {
  const { code, stdout, stderr } = await begin([], env, { entry: APP }).ended;
  assert.equal(code, 0, stdout + stderr);
  for (const name of ["Ada", "Grace", "Linus"]) {
    assert.match(stdout, new RegExp(`users: created \\d ${name} of acme`));
  }
  assert.match(stdout, /users: \w+ is asked for again, and is user \d already/);
  assert.match(stdout, /onboarding: heard that examples\/welcome is completed, 2 steps/);
  assert.match(stdout, /status: 'COMPLETED',\n\s+result: \{ users: 3 \}/);
  assert.equal(stderr, "");
}

describe("examples/moleculer-app", function () {
  this.timeout(60_000);
  afterEach(endAll);

  it("runs with NoETL in its own broker", async () => {
    const database = await testDatabase({ migrated: true });
    try {
      const env = {
        DATABASE_URL: database.url,
        NOETL_ENCRYPTION_KEY: "0f".repeat(16) + "1e".repeat(16),
      };
      await tellsItsStory({ ...env, NOETL_DATA_DIR: await newFolder() });
    } finally {
      await database.drop();
    }
  });

  it("runs beside a NoETL that it meets over NATS", async function () {
    const nodes: TestNodes | undefined = await testNodes();
    if (!nodes) return this.skip();
    try {
      await nodes.start();
      const { NATS_URL = "", NOETL_NAMESPACE = "" } = nodes.env;
      await tellsItsStory({ NATS_URL, NOETL_NAMESPACE });
    } finally {
      await nodes.close();
    }
  });
});
