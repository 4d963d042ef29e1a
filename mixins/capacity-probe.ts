// A probe over HTTP: whoever keeps a target says how much of it is free.
import { request } from "undici";
import { freeOf, type Snapshot } from "../schemas/capacity.ts";
import { isObject } from "../schemas/json.ts";

/** A probe's answer has two numbers in it. */
const BODY_CHARS_MAX = 65_536;
/** Statuses that say that there is no room. */
const FULL = new Set([429, 503]);

/**
 * Asks once: `{limit, used}`, to which the ratio applies, or `{free}`; 429 and 503 are full. Throws
 * for anything else.
 */
export async function probe(url: string, ratio: number, signal: AbortSignal): Promise<Snapshot> {
  const { statusCode, body } = await request(url, { signal });
  const text = (await body.text()).slice(0, BODY_CHARS_MAX);
  if (FULL.has(statusCode)) return { free: 0, reason: `the probe answers ${statusCode}` };
  if (statusCode >= 300) throw new Error(`the probe answers ${statusCode}`);
  return readAnswer(text, ratio);
}

function readAnswer(text: string, ratio: number): Snapshot {
  const answer: unknown = JSON.parse(text);
  if (!isObject(answer)) throw new Error("the probe's answer is no JSON object");
  const { limit, used, free } = answer;
  if (typeof limit === "number" && typeof used === "number") return freeOf({ limit, used }, ratio);
  if (typeof free === "number" && free >= 0) return { free: Math.floor(free) };
  throw new Error("the probe's answer has neither limit and used nor free");
}
