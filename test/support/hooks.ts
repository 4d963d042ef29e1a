// What mocha does when all tests of a process are done: stop what they share.

const closers: (() => Promise<void>)[] = [];

/** Registers something to stop at the very end, latest first. */
export function atEnd(close: () => Promise<void>): void {
  closers.unshift(close);
}

export const mochaHooks = {
  async afterAll(): Promise<void> {
    for (const close of closers.splice(0)) await close();
  },
};
