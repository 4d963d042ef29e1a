// Loops: one stream per activation of a loop step.
import type { ServiceSchema } from "moleculer";
import { loopService } from "../../mixins/loop-service.ts";
import type { Runtime } from "../../mixins/runtime.ts";
import { loopsDeliver } from "../../schemas/actor-requests.ts";
import { loopMachine } from "./machine.ts";

/** The service `loops` over a process's runtime. */
export default function loopsService(runtime: Runtime): ServiceSchema {
  return loopService(runtime, {
    name: "loops",
    machine: loopMachine,
    deliver: loopsDeliver,
    end: "loop.done",
  });
}
