// Fan-outs: one stream per activation of a step with `loop_mode: fanout`.
import type { ServiceSchema } from "moleculer";
import { loopService } from "../../mixins/loop-service.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { fanoutDeliver } from "../../schemas/actor-requests.ts";
import { fanoutMachine } from "./machine.ts";

/** The service `fanout` over a process's runtime. */
export default function fanoutService(runtime: Runtime): ServiceSchema {
  return loopService(runtime, {
    name: "fanout",
    machine: fanoutMachine,
    deliver: fanoutDeliver,
    end: "loop.fanin.completed",
  });
}
