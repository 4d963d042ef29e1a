/**
 * Another Moleculer app beside NoETL. With NATS_URL it meets a NoETL server and worker there;
 * without, NoETL lives in this very broker.
 */
import { ServiceBroker } from "moleculer";
import { createNoetl } from "../../index.ts";
import onboarding from "./onboarding.service.ts";
import users from "./users.service.ts";

const natsUrl = process.env["NATS_URL"];
/** NoETL's own namespace: nodes meet when they share it. */
const namespace = process.env["NOETL_NAMESPACE"] ?? "noetl";

const broker = new ServiceBroker({
  nodeID: `app-${process.pid}`,
  logLevel: "warn",
  ...(natsUrl && {
    namespace,
    transporter: { type: "NATS", options: { servers: natsUrl.split(",") } },
  }),
});
broker.createService(users);
broker.createService(onboarding);
if (!natsUrl) await createNoetl({ broker });
await broker.start();
try {
  await broker.waitForServices(["executions", "catalog"], 10_000);
  const answer = await broker.call(
    "onboarding.welcome",
    { names: ["Ada", "Grace", "Linus"] },
    { meta: { tenant_id: "acme" } },
  );
  console.log("app:", answer);
} catch (error) {
  console.error("app:", (error as Error).message);
  process.exitCode = 1;
} finally {
  await broker.stop();
}
