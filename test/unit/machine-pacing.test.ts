/** How many frames of a loop are on their way at a time. */
import { strict as assert } from "node:assert";
import type { Grant } from "../../schemas/frozen-scope.ts";
import { toRanges } from "../../schemas/ranges.ts";
import { Play } from "../support/execution-play.ts";
import { frameReply, ok } from "../support/worker-replies.ts";

const WINDOW = 64;
const ITEMS = 6_000;

interface Flight {
  grant: Grant;
  due: number;
}

function begin(): Play {
  const spec = `mode: parallel, max_in_flight: ${WINDOW}`;
  const play = Play.of(
    `- {step: each, loop: {in: ${ITEMS}, iterator: i, spec: {${spec}}}, tool: {kind: noop}}`,
  );
  play.thorough = false;
  return play;
}

/** Workers with room for all; a frame takes its items' time, and `tripMs`, in milliseconds. */
class Flights {
  readonly play = begin();
  readonly #tripMs: number;
  #open: Flight[] = [];

  constructor(itemMs: number, tripMs: number) {
    this.play.itemMs = itemMs;
    this.#tripMs = tripMs;
    this.#depart();
  }

  get open(): number {
    return this.#open.length;
  }

  /** Takes whatever rings. */
  #depart(): void {
    for (const ring of this.play.rings()) {
      const grant = this.play.claimRing(ring) as Grant;
      const items = grant.frame?.count ?? 1;
      const due = this.play.now + this.#tripMs + items * (this.play.itemMs ?? 0);
      this.#open.push({ grant, due });
    }
  }

  /** Reports the frame that is due next; false when there is none. */
  land(): boolean {
    this.#open.sort((one, other) => one.due - other.due);
    const next = this.#open.shift();
    if (!next) return false;
    this.play.now = Math.max(this.play.now, next.due);
    const reply = frameReply(next.grant, () => ok());
    this.play.report(next.grant, reply);
    this.#depart();
    return true;
  }

  /** The frame that is due last says that one of its items took so long, and goes on. */
  tell(ms: number): void {
    const { grant } = this.#open.at(-1) as Flight;
    this.play.now += ms;
    this.play.itemMs = ms;
    const frame = { ok: toRanges([grant.frame!.first]), failed: "", final: false };
    this.play.report(grant, { result: { status: "ok", context: { ok: [null] } }, frame });
    this.#depart();
  }
}

/** Once the first ones are back, the most on their way at once until the loop is over. */
function mostAtWork(itemMs: number, tripMs: number): number {
  const flights = new Flights(itemMs, tripMs);
  assert.equal(flights.open, WINDOW, "nothing is known yet");
  for (let landed = 0; landed < WINDOW; landed += 1) flights.land();
  let most = flights.open;
  while (flights.land()) most = Math.max(most, flights.open);
  assert.equal(flights.play.all("loop.done")[0]?.meta.stats.success, ITEMS);
  return most;
}

describe("frames on their way", () => {
  it("are few of items that take no time: what the stream can decide meanwhile, and two", () => {
    assert.equal(mostAtWork(0.015, 3), 3 + 1 + 2);
  });

  it("are more where the way is long", () => {
    assert.equal(mostAtWork(0.015, 30), 30 + 1 + 2);
  });

  it("are all that max_in_flight allows of items that take a while", () => {
    assert.equal(mostAtWork(2, 3), WINDOW);
  });

  it("become more as soon as one says that its items are slow, and goes on", () => {
    const flights = new Flights(0.015, 3);
    for (let landed = 0; landed < WINDOW; landed += 1) flights.land();
    assert.equal(flights.open, 6);
    flights.tell(2_000);
    assert.equal(flights.open, WINDOW);
  });
});
