/**
 * A real Kubernetes API server on etcd, on loopback only, for one test file. There are no nodes: what is accepted is
 * not run.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import type { Untyped } from "./backend.js";
import type { KubernetesObject } from "../../../../components/kubernetes/testing/objects.js";
import { freePort } from "../../../../provider/system/testing.js";
import { packageRoot } from "../../../../shared/directories.js";

const repository = packageRoot();

export interface Answer {
  status: number;
  /** What the server warns of, e.g. of a pod that the namespace's Pod Security Standard will refuse. */
  warnings: string;
  body: Record<string, Untyped>;
}

export class Cluster {
  private readonly folder = mkdtempSync(path.join(tmpdir(), "palisade-cluster-"));
  private readonly token = randomBytes(16).toString("hex");
  private readonly processes: ChildProcess[] = [];
  private port = 0;

  /** Builds the API server where it is not in the cache (minutes), and starts it (seconds). */
  async start(): Promise<void> {
    const tool = path.join(repository, "provider/local/patching/tools/go-tool.sh");
    const { stdout } = await promisify(execFile)(tool, [path.join(repository, "tools/pins/kube-apiserver")], {
      maxBuffer: 1 << 26,
    });
    const [client, peer] = [await freePort(), await freePort()];
    this.port = await freePort();
    const file = (name: string) => path.join(this.folder, name);
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    writeFileSync(file("service-accounts.key"), privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
    writeFileSync(file("tokens.csv"), `${this.token},test,test,system:masters\n`, { mode: 0o600 });
    const url = (port: number) => `http://127.0.0.1:${port}`;
    this.spawn("etcd", "etcd", [
      `--data-dir=${file("etcd")}`,
      `--listen-client-urls=${url(client)}`,
      `--advertise-client-urls=${url(client)}`,
      `--listen-peer-urls=${url(peer)}`,
      `--initial-advertise-peer-urls=${url(peer)}`,
      `--initial-cluster=default=${url(peer)}`,
      // A test's data need not outlive the machine's power.
      "--unsafe-no-fsync",
    ]);
    this.spawn("kube-apiserver", path.join(stdout.trim(), "kube-apiserver"), [
      `--etcd-servers=${url(client)}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${this.port}`,
      `--cert-dir=${file("certificates")}`,
      "--service-cluster-ip-range=10.96.0.0/16",
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${file("service-accounts.key")}`,
      `--service-account-signing-key-file=${file("service-accounts.key")}`,
      `--token-auth-file=${file("tokens.csv")}`,
      "--authorization-mode=RBAC",
      // Without a controller manager nobody makes the service accounts that pods would be given.
      "--disable-admission-plugins=ServiceAccount",
    ]);
    await this.ready();
  }

  private spawn(name: string, command: string, args: string[]): void {
    const log = openSync(path.join(this.folder, `${name}.log`), "w");
    this.processes.push(spawn(command, args, { stdio: ["ignore", log, log] }));
    closeSync(log);
  }

  private async ready(): Promise<void> {
    const deadline = Date.now() + 120_000;
    for (;;) {
      const ended = this.processes.find(({ exitCode, signalCode }) => exitCode !== null || signalCode !== null);
      const status = await this.send("GET", "/readyz").then(
        (answer) => answer.status,
        () => 0,
      );
      if (status === 200) return;
      if (ended || Date.now() > deadline) {
        const log = readFileSync(path.join(this.folder, "kube-apiserver.log"), "utf8");
        throw new Error(`the API server is not ready: ${log.slice(-2000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** One request; the server's certificate is its own, made a moment ago, and the way to it is loopback. */
  private send(method: string, target: string, body?: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          host: "127.0.0.1",
          port: this.port,
          method,
          path: target,
          rejectUnauthorized: false,
          headers: {
            authorization: `Bearer ${this.token}`,
            // JSON is YAML.
            ...(body ? { "content-type": "application/apply-patch+yaml" } : {}),
          },
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8").on("data", (part: string) => (text += part));
          response.on("end", () => {
            const json = response.headers["content-type"]?.startsWith("application/json");
            resolve({
              status: response.statusCode!,
              warnings: String(response.headers["warning"] ?? ""),
              body: json ? (JSON.parse(text) as Answer["body"]) : { text },
            });
          });
        },
      );
      sent.on("error", reject);
      sent.end(body);
    });
  }

  /** Server-side apply, as Pulumi's provider does it; fields that the server does not know are errors. */
  apply(object: KubernetesObject, options: { dryRun?: boolean } = {}): Promise<Answer> {
    const { apiVersion, kind, metadata } = object;
    const group = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const space = metadata.namespace === undefined ? "" : `/namespaces/${metadata.namespace}`;
    const plural = kind.toLowerCase().replace(/y$/, "ie").replace(/s$/, "se").concat("s");
    const query = `fieldManager=palisade&fieldValidation=Strict${options.dryRun ? "&dryRun=All" : ""}`;
    return this.send("PATCH", `${group}${space}/${plural}/${metadata.name}?${query}`, JSON.stringify(object));
  }

  /**
   * Applies a CustomResourceDefinition as it was published, and waits until the server serves its objects.
   * @param name `plural.group`
   */
  async define(name: string, version: string, yaml: string): Promise<void> {
    const target = `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}?fieldManager=palisade`;
    const { status, body } = await this.send("PATCH", target, yaml);
    if (status !== 201) throw new Error(`the API server refuses ${name}: ${JSON.stringify(body)}`);
    const [plural, ...group] = name.split(".");
    const deadline = Date.now() + 60_000;
    while ((await this.send("GET", `/apis/${group.join(".")}/${version}/${plural}`)).status !== 200) {
      if (Date.now() > deadline) throw new Error(`the API server does not serve ${name}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** A namespace whose pods have to satisfy the Pod Security Standard `restricted`. */
  async restrictedNamespace(name: string): Promise<void> {
    const labels = {
      "pod-security.kubernetes.io/enforce": "restricted",
      "pod-security.kubernetes.io/warn": "restricted",
    };
    const { status, body } = await this.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });
    if (status !== 201) throw new Error(JSON.stringify(body));
  }

  async stop(): Promise<void> {
    for (const child of this.processes.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
