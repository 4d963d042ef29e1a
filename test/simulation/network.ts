// Messages between processes: late, lost, doubled, out of order, or cut off as the weather says.
import type { Weather } from "./weather.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

/** Carries messages of all processes of a world. */
export class Network {
  readonly #scheduler: Scheduler;
  readonly #weather: Weather;

  constructor(scheduler: Scheduler, weather: Weather) {
    this.#scheduler = scheduler;
    this.#weather = weather;
  }

  /** Runs `deliver` at the receiver: once, twice or never. */
  send(kind: string, from: Owner, to: Owner, deliver: () => void): void {
    const weather = this.#weather;
    if (weather.isCut(from.name, to.name)) return;
    if (weather.strikes("drop")) return;
    const copies = weather.strikes("double") ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      this.#scheduler.after(weather.delay(), kind, deliver, to);
    }
  }
}
