// Protected actions answer their own process only.
import { strict as assert } from "node:assert";
import { ServiceBroker, type Context, type ServiceSchema } from "moleculer";
import { nearOnly } from "../../mixins/near-only.ts";

describe("a protected action", () => {
  const schema: ServiceSchema = {
    name: "vault",
    metadata: { word: "hush" },
    actions: {
      open: { visibility: "public", handler: () => "open" },
      plain: () => "plain",
      secret: {
        visibility: "protected",
        handler(): string {
          return (this as unknown as { metadata: { word: string } }).metadata.word;
        },
      },
    },
  };
  const guarded = nearOnly(schema);

  it("is called inside its process, as the service that it belongs to", async () => {
    const broker = new ServiceBroker({ logger: false, registry: { stopDelay: 0 } });
    broker.createService(guarded);
    await broker.start();
    const answers = ["open", "plain", "secret"].map(name => broker.call(`vault.${name}`));
    assert.deepEqual(await Promise.all(answers), ["open", "plain", "hush"]);
    await broker.stop();
  });

  it("is not there for a request of another node; the others are", async () => {
    const from = (nodeID: string) => ({ nodeID, broker: { nodeID: "here" } }) as Context;
    const { secret, open } = guarded.actions as Record<
      string,
      { handler(ctx: Context): Promise<unknown> }
    >;
    const refused = { type: "SERVICE_NOT_FOUND", data: { action: "vault.secret", nodeID: "here" } };
    await assert.rejects(secret!.handler(from("far")), refused);
    assert.equal(await open!.handler(from("far")), "open");
  });
});
