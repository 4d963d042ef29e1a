// What is deployed: every name that a manifest mentions is there, and means what it says to us.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { Setting } from "../../schemas/setting.ts";
import { SETTINGS } from "../../schemas/settings.ts";
import { loadSettings } from "../../schemas/env.ts";
import {
  labelsOf,
  plainEnv,
  podOf,
  rendered,
  RENDERED,
  the,
  type Container,
  type Manifest,
} from "../support/chart.ts";
import { ROOT } from "../support/source-files.ts";

/** Keys of the Secret that the README tells to make. */
const SECRET_KEYS = ["POSTGRES_PASSWORD", "NOETL_ENCRYPTION_KEY", "NATS_PASSWORD", "NOETL_API_KEY"];
/** Paths of our own API without its prefix: services/api/routes.ts. */
const PROBES = ["/health", "/health/live"];

const text = (path: string): string => readFileSync(join(ROOT, path), "utf8");

const known = new Set(
  Object.values(SETTINGS).flatMap(fields =>
    Object.values(fields as Record<string, Setting<unknown>>).map(({ variable }) => variable),
  ),
);

interface Workload {
  manifest: Manifest;
  name: string;
  container: Container;
}

function workloads(all: Manifest[]): Workload[] {
  return all.flatMap(manifest =>
    (podOf(manifest)?.containers ?? []).map(container => {
      return { manifest, name: `${manifest.kind} ${manifest.metadata.name}`, container };
    }),
  );
}

const isOurs = ({ container }: Workload): boolean => /moleculer-noetl:/.test(container.image);

/** The environment of a container as its pod sees it, secrets aside. */
function environment(all: Manifest[], { container }: Workload): Record<string, string> {
  const maps = (container.envFrom ?? []).map(({ configMapRef }) => {
    return the(all, "ConfigMap", configMapRef.name).data ?? {};
  });
  return Object.assign({}, ...maps, plainEnv(container)) as Record<string, string>;
}

/** A service as others call it. */
const host = ({ metadata }: Manifest): string =>
  `${metadata.name}.${metadata.namespace}.svc.cluster.local`;

for (const file of Object.keys(RENDERED)) {
  describe(`k8s/rendered/${file}`, () => {
    const all = rendered(file);
    const every = workloads(all);
    const ours = every.filter(isOurs);
    const services = all.filter(({ kind }) => kind === "Service");

    it("names each thing once, in a namespace", () => {
      const names = all.map(
        ({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`,
      );
      assert.deepEqual(names, [...new Set(names)]);
      assert.ok(!names.some(name => name.includes("undefined")));
      assert.ok(ours.length >= 3, "a server, a worker and a migration");
    });

    it("selects pods that are there, and no others", () => {
      const pods = all.filter(podOf).map(labelsOf);
      const selectors = all.flatMap(({ kind, metadata, spec = {} }) => {
        if (podOf({ spec } as Manifest) && kind === "Job") return [];
        const { selector, podSelector } = spec as Record<string, Record<string, object>>;
        const found = selector?.["matchLabels"] ?? selector ?? podSelector?.["matchLabels"];
        return found ? [{ name: `${kind} ${metadata.name}`, labels: Object.entries(found) }] : [];
      });
      for (const { name, labels } of selectors) {
        const chosen = pods.filter(pod => labels.every(([key, value]) => pod[key] === value));
        assert.equal(chosen.length, 1, name);
      }
    });

    it("mentions ConfigMaps, keys of the Secret and volumes that exist", () => {
      for (const { manifest, name, container } of every) {
        const { volumes = [] } = podOf(manifest) ?? {};
        const claims = (manifest.spec?.["volumeClaimTemplates"] ?? []) as Manifest[];
        const there = [...volumes.map(one => one.name), ...claims.map(one => one.metadata.name)];
        for (const mount of container.volumeMounts ?? []) {
          assert.ok(there.includes(mount.name), `${name}: volume ${mount.name}`);
        }
        const maps = [
          ...(container.envFrom ?? []).map(one => one.configMapRef.name),
          ...volumes.flatMap(one => one.configMap?.name ?? []),
        ];
        for (const map of maps) the(all, "ConfigMap", map);
        for (const { valueFrom } of container.env ?? []) {
          const { secretKeyRef } = valueFrom ?? {};
          if (!secretKeyRef) continue;
          assert.equal(secretKeyRef.name, "noetl", name);
          assert.ok(SECRET_KEYS.includes(secretKeyRef.key), `${name}: ${secretKeyRef.key}`);
        }
      }
    });

    it("gives our pods settings of ours that are accepted, and no secret in the clear", () => {
      for (const workload of ours) {
        const given = environment(all, workload);
        for (const variable of Object.keys(given)) assert.ok(known.has(variable), variable);
        const secrets = (workload.container.env ?? []).map(({ name }) => name);
        for (const variable of secrets) assert.ok(known.has(variable), variable);
        assert.ok(!Object.keys(given).some(name => SECRET_KEYS.includes(name)));
        const settings = loadSettings(given);
        assert.equal(settings.database.pooler, "transaction");
        assert.deepEqual(settings.unknownVariables, []);
      }
    });

    it("leads to services and ports that exist", () => {
      const ports = new Map(
        services.map(service => {
          const found = service.spec?.["ports"] as { port: number }[];
          return [host(service), found.map(({ port }) => port)];
        }),
      );
      const reaches = (name: string, port: number, from: string): void =>
        assert.ok(ports.get(name)?.includes(port), `${from} leads to ${name}:${port}`);
      for (const workload of ours) {
        const { database, nats, http } = loadSettings(environment(all, workload));
        reaches(database.host ?? "", database.port, workload.name);
        for (const address of [nats.url, http.serverUrl]) {
          if (address === undefined) continue;
          const url = new URL(address);
          reaches(url.hostname, Number(url.port), workload.name);
        }
      }
      for (const { spec } of services) {
        const pods = every.filter(({ manifest }) => {
          const labels = Object.entries(spec?.["selector"] as Record<string, string>);
          return labels.every(([key, value]) => labelsOf(manifest)[key] === value);
        });
        for (const { targetPort } of spec?.["ports"] as { targetPort: string }[]) {
          const found = pods.flatMap(({ container }) => container.ports ?? []);
          assert.ok(
            found.some(({ name }) => name === targetPort),
            targetPort,
          );
        }
      }
    });

    it("asks servers on paths of the API, and ends pods when they have drained", () => {
      const [server] = ours.filter(({ manifest }) => manifest.metadata.name === "noetl-server");
      const container = server!.container as unknown as Record<string, Probe>;
      const asked = ["startupProbe", "livenessProbe", "readinessProbe"].map(
        name => container[name]!.httpGet,
      );
      for (const { path, port } of asked) assert.ok(PROBES.includes(path) && port === "http", path);
      assert.equal(asked[1]!.path, "/health/live", "what only the world lacks restarts nobody");
      for (const workload of ours.filter(({ manifest }) => manifest.kind === "Deployment")) {
        const { drainMs } = loadSettings(environment(all, workload)).node;
        const seconds = podOf(workload.manifest)?.terminationGracePeriodSeconds ?? 30;
        assert.ok(seconds * 1_000 > 2 * drainMs, `${workload.name}: ${seconds} s`);
      }
    });

    it("runs nobody as root, on a root that can be written, or with Kubernetes' variables", () => {
      for (const { manifest, name, container } of every) {
        const pod = podOf(manifest)!;
        const security = container["securityContext"] as Record<string, unknown>;
        const podSecurity = pod["securityContext"] as Record<string, unknown>;
        assert.equal(pod.enableServiceLinks, false, name);
        assert.equal(pod["automountServiceAccountToken"], false, name);
        assert.equal(podSecurity["runAsNonRoot"], true, name);
        assert.ok(Number(podSecurity["runAsUser"]) > 0, name);
        assert.equal(security["readOnlyRootFilesystem"], true, name);
        assert.equal(security["allowPrivilegeEscalation"], false, name);
        assert.deepEqual(security["capabilities"], { drop: ["ALL"] }, name);
        const { limits } = container["resources"] as { limits: Record<string, string> };
        assert.ok(limits["memory"], `${name} has a limit of memory`);
      }
    });

    it("has one image for all our pods, of this version, and no image without a version", () => {
      const images = new Set(ours.map(({ container }) => container.image));
      const { version } = JSON.parse(text("package.json")) as { version: string };
      assert.equal(images.size, 1);
      assert.match([...images][0]!, new RegExp(`:${version}$`));
      for (const { container } of every) assert.match(container.image, /:v?\d/, container.image);
    });
  });
}

interface Probe {
  httpGet: { path: string; port: string };
}

interface Compose {
  services: Record<
    string,
    {
      image: string;
      environment?: Record<string, string>;
      command?: string[];
      depends_on?: Record<string, object>;
      volumes?: string[];
    }
  >;
  volumes: Record<string, unknown>;
}

describe("compose.yaml", () => {
  const { services, volumes } = parse(text("compose.yaml"), { merge: true }) as Compose;
  const kind = rendered("kind.yaml");

  it("gives our processes settings of ours, and leads to services that are there", () => {
    for (const name of ["server", "worker"]) {
      const { environment = {}, depends_on = {} } = services[name]!;
      for (const variable of Object.keys(environment)) assert.ok(known.has(variable), variable);
      const plain = Object.entries(environment).filter(([, value]) => !value.includes("${"));
      const { database, nats, http } = loadSettings(Object.fromEntries(plain));
      const hosts = [database.host, new URL(nats.url ?? "").hostname];
      if (http.serverUrl) hosts.push(new URL(http.serverUrl).hostname);
      for (const one of [...hosts, ...Object.keys(depends_on)]) assert.ok(services[one!], one);
    }
  });

  it("pools as the chart does, with the same images", () => {
    const bouncer = podOf(the(kind, "Deployment", "pgbouncer"))!.containers[0]!;
    const { environment = {}, image } = services["pgbouncer"]!;
    assert.equal(image, bouncer.image);
    const { DB_HOST: _host, ...chart } = plainEnv(bouncer);
    const {
      DB_HOST: _name,
      PGBOUNCER_FOLDER: _folder,
      POSTGRES_PASSWORD: _,
      ...here
    } = environment;
    assert.deepEqual(here, chart);
    for (const name of ["postgres", "nats"]) {
      const pod = podOf(the(kind, "StatefulSet", `noetl-${name}`))!;
      assert.equal(services[name]!.image, pod.containers[0]!.image);
    }
  });

  it("mounts files and volumes that are there", () => {
    for (const { volumes: mounts = [] } of Object.values(services)) {
      for (const [from = ""] of mounts.map(mount => mount.split(":"))) {
        if (from.startsWith("./")) text(from);
        else assert.ok(from in volumes, from);
      }
    }
  });
});
