// Rules that are switched off on purpose: with each of them a check must fail.
import type { Runtime } from "../../mixins/runtime.ts";
import type { World } from "./world.ts";

/** What a switch replaces of a process, and of the machines while it is on. */
export interface Sabotage {
  name: string;
  ports?: (runtime: Runtime, world: World) => Partial<Runtime>;
  /** Changes the machines; gives what changes them back. */
  machines?: () => () => void;
}

export const NO_SABOTAGE: Sabotage = { name: "none" };
