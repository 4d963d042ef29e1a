// An answer that a broker's cacher may keep, where what comes out decides whether it may.
import type { ServiceBroker } from "moleculer";

export interface Remembering<T> {
  key: string;
  /** Seconds. */
  ttl: number;
  load: () => Promise<T>;
  /** Whether it stays as it is for so long; always when absent. */
  isLasting?: (value: T) => boolean;
}

/**
 * What the cacher has, else what `load` gives. Whatever cacher the broker has, or none: one that
 * fails, or is not connected, is not asked.
 */
export async function remembered<T extends object>(
  { cacher }: ServiceBroker,
  { key, ttl, load, isLasting = () => true }: Remembering<T>,
): Promise<T> {
  if (!cacher || cacher.connected === false) return load();
  const found: unknown = await cacher.get(key).catch(() => undefined);
  if (typeof found === "object" && found !== null) return found as T;
  const value = await load();
  // Nobody waits for it, and a set that is lost is a miss.
  if (isLasting(value)) void cacher.set(key, value, ttl).catch(() => undefined);
  return value;
}

/** Its next reader asks the store. Never rejects: what cannot be deleted now ends by itself. */
export async function forget({ cacher }: ServiceBroker, key: string): Promise<void> {
  await cacher?.del(key).catch(() => undefined);
}
