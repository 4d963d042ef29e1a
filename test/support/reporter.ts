// Mocha's spec reporter with the totals as the very last line.
import Mocha from "mocha";
import { totalsLine } from "./totals.ts";

export default class TotalsReporter extends Mocha.reporters.Spec {
  override done(failures: number, exit: (failures: number) => void): void {
    const { passes, pending } = this.stats;
    const totals = totalsLine({ passed: passes, failed: failures, skipped: pending });
    process.stdout.write(`\n${totals}\n`, () => exit(failures));
  }
}
