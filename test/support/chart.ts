// The chart in k8s/, as Helm renders it and as it was rendered when it was last changed.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { parseAllDocuments } from "yaml";
import { ROOT } from "./source-files.ts";

/** Files of k8s/rendered, each with the values files it is made of. */
export const RENDERED: Record<string, string[]> = {
  "kind.yaml": ["kind.yaml"],
  "gke.yaml": ["gke.yaml", "gke-iap.yaml"],
};

export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  spec?: Record<string, unknown>;
  data?: Record<string, string>;
}

interface KeyRef {
  name: string;
  key: string;
  optional?: boolean;
}

export interface Container {
  name: string;
  image: string;
  command?: string[];
  args?: string[];
  env?: { name: string; value?: string; valueFrom?: { secretKeyRef?: KeyRef } }[];
  envFrom?: { configMapRef: { name: string } }[];
  ports?: { name: string; containerPort: number }[];
  volumeMounts?: { name: string; mountPath: string }[];
  [more: string]: unknown;
}

export interface Pod {
  containers: Container[];
  terminationGracePeriodSeconds?: number;
  enableServiceLinks?: boolean;
  volumes?: { name: string; configMap?: { name: string } }[];
  [more: string]: unknown;
}

/** `HELM_BIN`, what .ci/get-helm.ts got, or the PATH; undefined where there is none. */
export function helmBinary(): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  const places = [
    process.env["HELM_BIN"],
    join(ROOT, ".cache/helm/helm"),
    ...folders.map(folder => join(folder, "helm")),
  ];
  return places.find(place => place !== undefined && existsSync(place));
}

export interface Choice {
  /** Names of values files in k8s/. */
  values?: string[];
  /** As `--set` takes them. */
  set?: string[];
}

function argsOf({ values = [], set = [] }: Choice): string[] {
  return [
    ...values.flatMap(file => ["--values", join(ROOT, "k8s", file)]),
    ...set.flatMap(one => ["--set", one]),
  ];
}

const CHART = join(ROOT, "k8s/chart");

/** The text that `helm template` makes, as release `noetl` in a namespace of that name. */
export function render(helm: string, choice: Choice): string {
  const args = ["template", "noetl", CHART, "--namespace", "noetl", ...argsOf(choice)];
  return execFileSync(helm, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** What Helm says against a choice of values; undefined when nothing. */
export function complaint(helm: string, choice: Choice): string | undefined {
  const args = ["template", "noetl", CHART, ...argsOf(choice)];
  const { status, stderr } = spawnSync(helm, args, { encoding: "utf8" });
  return status === 0 ? undefined : stderr;
}

/** `helm lint`; throws with what it says. */
export function lint(helm: string, choice: Choice): void {
  execFileSync(helm, ["lint", "--strict", CHART, ...argsOf(choice)], { stdio: "pipe" });
}

/** Every document of a YAML text; refuses keys that are there twice. */
export function manifests(text: string): Manifest[] {
  return parseAllDocuments(text, { uniqueKeys: true }).flatMap(document => {
    if (document.errors.length > 0) throw new Error(document.errors.join("\n"));
    const value = document.toJS() as Manifest | null;
    return value ? [value] : [];
  });
}

/** As it was last rendered. */
export function rendered(file: string): Manifest[] {
  return manifests(readFileSync(join(ROOT, "k8s/rendered", file), "utf8"));
}

/** The only manifest of a kind and name. */
export function the(all: Manifest[], kind: string, name: string): Manifest {
  const found = all.filter(one => one.kind === kind && one.metadata.name === name);
  if (found.length !== 1 || !found[0]) throw new Error(`${found.length} of ${kind} ${name}`);
  return found[0];
}

/** The pod that a workload makes; undefined for anything else. */
export function podOf({ spec }: Manifest): Pod | undefined {
  const template = spec?.["template"] as { spec?: Pod } | undefined;
  return template?.spec;
}

export function labelsOf({ spec }: Manifest): Record<string, string> {
  const template = spec?.["template"] as { metadata?: { labels?: Record<string, string> } };
  return template?.metadata?.labels ?? {};
}

/** What a container's own `env` sets to plain values. */
export function plainEnv({ env = [] }: Container): Record<string, string> {
  return Object.fromEntries(
    env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])),
  );
}
