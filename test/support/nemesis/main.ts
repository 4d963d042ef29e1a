// `npm run nemesis -- --faults 300 --seed 7` prints each fault, what they came to, and the verdict.
// `--only KIND` (repeatable) draws from these kinds, `--minutes N` ends it earlier, and
// `--evidence FILE` keeps all that the verdict is made of, `--write` puts it into README.md.
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { mochaHooks } from "../hooks.ts";
import { kindsNamed } from "./faults.ts";
import { writeMatrix } from "./matrix.ts";
import { runNemesis } from "./nemesis.ts";
import { lineOf, summaryOf } from "./summary.ts";

const { values } = parseArgs({
  options: {
    faults: { type: "string", default: "300" },
    minutes: { type: "string", default: "60" },
    seed: { type: "string" },
    only: { type: "string", multiple: true },
    evidence: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
process.stdout.write(`seed ${seed}\n`);
const verdict = await runNemesis({
  seed,
  faults: Number(values.faults),
  seconds: Number(values.minutes) * 60,
  ...(values.only && { kinds: kindsNamed(values.only) }),
  say: record => void process.stdout.write(`${lineOf(record)}\n`),
});
process.stdout.write(`${summaryOf(verdict)}\n`);
if (verdict.seen !== "") process.stdout.write(`${verdict.seen}\n`);
if (values.evidence !== undefined) await writeFile(values.evidence, JSON.stringify(verdict));
if (values.write) await writeMatrix(verdict);
await mochaHooks.afterAll();
process.exit(verdict.violations.length > 0 ? 1 : 0);
