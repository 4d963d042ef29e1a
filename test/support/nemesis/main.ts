// `npm run nemesis -- --faults 300 --seed 7`: prints each fault, what they came to, and the verdict.
import { parseArgs } from "node:util";
import { mochaHooks } from "../hooks.ts";
import { runNemesis } from "./nemesis.ts";
import { lineOf, summaryOf } from "./summary.ts";

const { values } = parseArgs({
  options: {
    faults: { type: "string", default: "300" },
    minutes: { type: "string", default: "60" },
    seed: { type: "string" },
    only: { type: "string", multiple: true },
  },
});
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
process.stdout.write(`seed ${seed}\n`);
const verdict = await runNemesis({
  seed,
  faults: Number(values.faults),
  seconds: Number(values.minutes) * 60,
  ...(values.only && { only: values.only }),
  say: record => void process.stdout.write(`${lineOf(record)}\n`),
});
process.stdout.write(`${summaryOf(verdict)}\n`);
await mochaHooks.afterAll();
process.exit(verdict.violations.length > 0 ? 1 : 0);
