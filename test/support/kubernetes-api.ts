// A stand-in for the Kubernetes API: one ResourceQuota over HTTPS, for one service account's token.
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TestKubernetes {
  readonly port: number;
  /** Folder with token, ca.crt and namespace. */
  readonly serviceAccount: string;
  readonly quota: { hard: number; used: number; resource: string };
  /** Requests so far. */
  readonly asked: number;
  /** Answered instead of the quota, while set. */
  status: number | undefined;
  /** The token that is valid from now on; the file is written anew unless told not to. */
  setToken(token: string, isWritten?: boolean): Promise<void>;
  close(): Promise<void>;
}

const NAMESPACE = "noetl-test";
export const QUOTA = "workflow-quota";

/** Undefined, said aloud, where there is no openssl to make a certificate with. */
export async function startKubernetes(): Promise<TestKubernetes | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "noetl-k8s-"));
  const [key, ca] = [join(folder, "key.pem"), join(folder, "ca.crt")];
  try {
    const subject = ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"];
    const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const files = ["-nodes", "-days", "2", "-keyout", key, "-out", ca];
    execFileSync("openssl", [...made, ...files, ...subject], { stdio: "ignore" });
  } catch {
    process.stdout.write("      skipped: no openssl to make a certificate with\n");
    await rm(folder, { recursive: true });
    return undefined;
  }
  await writeFile(join(folder, "namespace"), `${NAMESPACE}\n`);
  const quota = { hard: 75, used: 0, resource: "count/jobs.batch" };
  const path = `/api/v1/namespaces/${NAMESPACE}/resourcequotas/${QUOTA}`;
  let token = "";
  let asked = 0;
  const api = { status: undefined as number | undefined };
  const options = { key: await readFile(key), cert: await readFile(ca) };
  const server = createServer(options, (request, response) => {
    asked += 1;
    const isKnown = request.headers.authorization === `Bearer ${token}`;
    const status = api.status ?? (!isKnown ? 401 : request.url === path ? 200 : 404);
    const { resource, hard, used } = quota;
    const told = { hard: { [resource]: String(hard) }, used: { [resource]: String(used) } };
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(status === 200 ? { kind: "ResourceQuota", status: told } : {}));
  });
  await new Promise<void>(resolve => server.listen(0, "127.0.0.1", resolve));
  const setToken = async (next: string, isWritten = true) => {
    token = next;
    if (isWritten) await writeFile(join(folder, "token"), `${next}\n`);
  };
  await setToken("first");
  return Object.assign(api, {
    port: (server.address() as AddressInfo).port,
    serviceAccount: folder,
    quota,
    get asked() {
      return asked;
    },
    setToken,
    async close() {
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  });
}
