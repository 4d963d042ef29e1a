// Mocha's spec reporter with the totals as the very last line: `N passed, N failed[, N skipped]`.
import Mocha from "mocha";

export default class TotalsReporter extends Mocha.reporters.Spec {
  override done(failures: number, exit: (failures: number) => void): void {
    const { passes, pending } = this.stats;
    const skipped = pending > 0 ? `, ${pending} skipped` : "";
    process.stdout.write(`\n${passes} passed, ${failures} failed${skipped}\n`, () =>
      exit(failures),
    );
  }
}
