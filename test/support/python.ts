// The Python that tests run code with, where there is one.
import { findPython } from "../../mixins/python.ts";
import { programEnvironment } from "../../schemas/env.ts";

let search: ReturnType<typeof findPython> | undefined;

/** For `before`: skips a suite where there is no Python 3.8, and says so. */
export async function needsPython(test: Mocha.Context): Promise<void> {
  search ??= findPython({ environment: programEnvironment() });
  const found = await search;
  if ("python" in found) return;
  process.stdout.write(`    tests that run Python are skipped: ${found.problem}\n`);
  test.skip();
}
