// Writes k8s/rendered/: what the chart makes of the values files, for reading, for `kubectl apply`,
// and for the tests, which compare it with what Helm makes of the chart. Helm: .ci/get-helm.ts.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { helmBinary, render, RENDERED } from "../test/support/chart.ts";
import { ROOT } from "../test/support/source-files.ts";

const helm = helmBinary();
if (helm === undefined) throw new Error("there is no helm: node .ci/get-helm.ts");
for (const [file, values] of Object.entries(RENDERED)) {
  writeFileSync(join(ROOT, "k8s/rendered", file), render(helm, { values }));
}
