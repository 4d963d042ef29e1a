// A probe over HTTP: whoever keeps the target says how much of it is free.
import { request } from "undici";
import { isObject } from "../../../schemas/json.ts";
import { freeOf, type CapacityProvider, type Snapshot } from "./provider.ts";

/** A probe's answer has two numbers in it. */
const BODY_CHARS_MAX = 65_536;
/** Statuses that say that there is no room. */
const FULL = new Set([429, 503]);

/** `{limit, used}`, to which the ratio applies, or `{free}`; 429 and 503 are full, others errors. */
export function probeProvider(url: string, ratio: number): CapacityProvider {
  return {
    name: "http-probe",
    async snapshot(signal) {
      const { statusCode, body } = await request(url, { signal });
      const text = (await body.text()).slice(0, BODY_CHARS_MAX);
      if (FULL.has(statusCode)) return { free: 0, reason: `the probe answers ${statusCode}` };
      if (statusCode >= 300) throw new Error(`the probe answers ${statusCode}`);
      return readAnswer(text, ratio);
    },
  };
}

function readAnswer(text: string, ratio: number): Snapshot {
  const answer: unknown = JSON.parse(text);
  if (!isObject(answer)) throw new Error("the probe's answer is no JSON object");
  const { limit, used, free } = answer;
  if (typeof limit === "number" && typeof used === "number") return freeOf({ limit, used }, ratio);
  if (typeof free === "number" && free >= 0) return { free: Math.floor(free) };
  throw new Error("the probe's answer has neither limit and used nor free");
}
