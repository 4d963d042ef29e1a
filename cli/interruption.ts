/** Ctrl-C while something is shown: once to leave, twice to cancel, three times to end at once. */
import { EXIT } from "./exit.ts";

/** One Ctrl-C reaches the launcher and this process: what comes together counts once. */
const SAME_SIGNAL_MS = 250;

export interface Interruption {
  once: Promise<"interrupted">;
  /** Gives the signals, or the keys, back to who had them before. */
  stop(): void;
}

/**
 * SIGINT and SIGTERM while it is open; Node's own reaction, to end at once, is off until `stop`.
 */
export function watchSignals(): Interruption & { twice: Promise<"cancel"> } {
  const once = Promise.withResolvers<"interrupted">();
  const twice = Promise.withResolvers<"cancel">();
  let lastMs = 0;
  let count = 0;
  function onInterrupt() {
    const nowMs = Date.now();
    if (nowMs - lastMs < SAME_SIGNAL_MS) return;
    lastMs = nowMs;
    count += 1;
    if (count === 1) once.resolve("interrupted");
    else if (count === 2) twice.resolve("cancel");
    else process.exit(EXIT.interrupted);
  }
  function onTerminate() {
    once.resolve("interrupted");
  }
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
  return {
    once: once.promise,
    twice: twice.promise,
    stop() {
      process.off("SIGINT", onInterrupt);
      process.off("SIGTERM", onTerminate);
    },
  };
}

interface Key {
  name?: string;
  ctrl?: boolean;
}

/**
 * Ctrl-C or Ctrl-D inside a REPL. There the terminal sends keys, not signals, and the REPL listens
 * to them; they are taken from it until `stop`, so that a key ends what is shown, not the REPL.
 */
export function watchKeys(input: NodeJS.ReadStream = process.stdin): Interruption {
  if (!input.isTTY) return watchSignals();
  const { promise, resolve } = Promise.withResolvers<"interrupted">();
  const others = input.listeners("keypress") as ((...args: unknown[]) => void)[];
  const onKey = (_text: string, key: Key) => {
    if (key.ctrl && (key.name === "c" || key.name === "d")) resolve("interrupted");
  };
  // Ours first: without any listener the input would forget how to make keys of bytes.
  input.on("keypress", onKey);
  for (const other of others) input.off("keypress", other);
  return {
    once: promise,
    stop() {
      for (const other of others) input.on("keypress", other);
      input.off("keypress", onKey);
    },
  };
}
