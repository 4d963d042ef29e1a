// Manifests are what Kubernetes' own types say: no field that it does not know, none of another
// type. An API server would drop a misspelt field without a word.
import { strict as assert } from "node:assert";
import { join } from "node:path";
import ts from "typescript";
import { rendered, RENDERED, type Manifest } from "../support/chart.ts";
import { ROOT } from "../support/source-files.ts";

/** Of Google, and not of Kubernetes: no types are published for these. */
const CUSTOM = ["cloud.google.com/v1", "networking.gke.io/v1"];

/** `networking.k8s.io/v1` is `kubernetes-types/networking/v1`, and plain `v1` is core. */
function moduleOf(apiVersion: string): string {
  const [group = "", version = "v1"] = apiVersion.includes("/")
    ? apiVersion.split("/")
    : ["core", apiVersion];
  return `kubernetes-types/${group.split(".")[0]}/${version}`;
}

/** What the compiler says against the manifests, as literals of their types. */
function faults(all: Manifest[]): string[] {
  const lines = all.map((manifest, at) => {
    const type = `import("${moduleOf(manifest.apiVersion)}").${manifest.kind}`;
    return `export const m${at}: ${type} = ${JSON.stringify(manifest)};`;
  });
  const file = join(ROOT, "test/manifests.ts");
  const options: ts.CompilerOptions = {
    ...{ strict: true, noEmit: true, skipLibCheck: true, types: [], lib: ["lib.es2022.d.ts"] },
    ...{ module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler },
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = name => name === file || fileExists(name);
  host.getSourceFile = (name, version, ...rest) =>
    name === file
      ? ts.createSourceFile(name, lines.join("\n"), version)
      : getSourceFile(name, version, ...rest);
  const program = ts.createProgram([file], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ messageText, start = 0 }) => {
    const line = lines.join("\n").slice(0, start).split("\n").length - 1;
    const { kind, metadata } = all[line]!;
    return `${kind} ${metadata.name}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
  });
}

describe("manifests by Kubernetes' types", function () {
  this.timeout(60_000);
  const typed = (file: string): Manifest[] =>
    rendered(file).filter(({ apiVersion }) => !CUSTOM.includes(apiVersion));

  for (const file of Object.keys(RENDERED)) {
    it(`k8s/rendered/${file} has no unknown field and no wrong type`, () => {
      const all = typed(file);
      assert.ok(all.length >= 10);
      assert.deepEqual(faults(all), []);
    });
  }

  it("would tell an unknown field, a wrong type and a missing part", () => {
    const [deployment] = typed("kind.yaml").filter(({ kind }) => kind === "Deployment");
    const { spec = {} } = deployment!;
    const broken = [
      { ...deployment!, spec: { ...spec, replicaz: 2 } },
      { ...deployment!, spec: { ...spec, replicas: "2" } },
      { ...deployment!, spec: { template: spec["template"] } },
    ];
    const [unknown = "", wrong = "", missing = ""] = faults(broken);
    assert.match(unknown, /"replicaz"' does not exist/);
    assert.match(wrong, /'string' is not assignable to type 'number'/);
    assert.match(missing, /'selector' is missing/);
  });
});
