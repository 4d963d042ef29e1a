// What mocha does around all tests of a process: looks whether it can, and stops what they share.

const closers: (() => Promise<void>)[] = [];
const leaving = new Set<() => void>();

process.once("exit", () => {
  for (const act of leaving) act();
});
// Told to stop: what we began must not be left behind.
for (const signal of ["SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

/** Registers what has to be done when this process ends, however that comes; gives its undoing. */
export function atExit(act: () => void): () => void {
  leaving.add(act);
  return () => void leaving.delete(act);
}

/** Registers something to stop at the very end, latest first. */
export function atEnd(close: () => Promise<void>): void {
  closers.unshift(close);
}

export const mochaHooks = {
  /** `npm run test:pgbouncer` where there is none proves nothing, and says so. */
  async beforeAll(this: Mocha.Context): Promise<void> {
    if (process.env["TEST_PGBOUNCER"] !== "1") return;
    const { pgBouncerBinary, sayNoPgBouncer } = await import("./pgbouncer.ts");
    if (pgBouncerBinary() !== undefined) return;
    sayNoPgBouncer();
    this.skip();
  },
  async afterAll(): Promise<void> {
    for (const close of closers.splice(0)) await close();
  },
};
