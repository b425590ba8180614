/** Kubernetes as a backend of groups: a real API server, which is asked afterwards what it keeps. */
import { ContainerGroup } from "../../../../components/kubernetes/index.js";
import { answer, objectsOf, type KubernetesObject } from "../../../../components/kubernetes/testing/objects.js";
import type { GroupArgs } from "../../../../components/group/model.js";
import { record, settled } from "../../../../components/internal/testing/recorder.js";
import {
  portText,
  type GroupBackend,
  type TakenGroup,
  type TakenProbe,
  type TakenProgram,
  type Untyped,
} from "./backend.js";
import { Cluster } from "./cluster.js";

type Kept = Record<string, Untyped>;

export class KubernetesBackend implements GroupBackend {
  readonly name = "Kubernetes";
  readonly refused = [];
  readonly cluster = new Cluster();
  private namespace = "";
  private groups = 0;
  /** Groups that the server has taken. */
  taken = 0;

  start(): Promise<void> {
    return this.cluster.start();
  }

  stop(): Promise<void> {
    return this.cluster.stop();
  }

  declare(name: string, args: GroupArgs): void {
    new ContainerGroup(name, { ...args, namespace: this.namespace });
  }

  /** The objects that Pulumi would register for the group, in a namespace of its own. */
  async objects(name: string, args: GroupArgs): Promise<KubernetesObject[]> {
    this.namespace = `group-${(this.groups += 1)}`;
    await this.cluster.restrictedNamespace(this.namespace);
    const registrations = await record({ answer });
    this.declare(name, args);
    await settled();
    return objectsOf(registrations);
  }

  async take(name: string, args: GroupArgs): Promise<TakenGroup> {
    const kept: Kept[] = [];
    for (const object of await this.objects(name, args)) {
      const dry = await this.cluster.apply(object, { dryRun: true });
      const real = await this.cluster.apply(object);
      for (const { status, body, warnings } of [dry, real]) {
        if (status !== 201 || warnings !== "") {
          throw new Error(`${object.kind} is refused by the API server: ${status} ${warnings} ${JSON.stringify(body)}`);
        }
      }
      kept.push(real.body);
    }
    const pods = await this.cluster.apply(podOf(kept));
    if (pods.status > 201)
      throw new Error(`the API server refuses its pod: ${pods.status} ${JSON.stringify(pods.body)}`);
    this.taken += 1;
    return takenFromObjects([...kept.filter(({ kind }) => kind !== "Pod"), pods.body]);
  }
}

/** The pod itself, or the one that a controller would make of the Deployment: the standard is enforced on pods. */
export function podOf(objects: Kept[]): KubernetesObject {
  const workload = objects.find(({ kind }) => kind === "Deployment" || kind === "Pod")!;
  const { name, namespace } = workload["metadata"];
  const { labels } = workload["kind"] === "Pod" ? workload["metadata"] : workload["spec"].template.metadata;
  const spec = workload["kind"] === "Pod" ? workload["spec"] : workload["spec"].template.spec;
  return { apiVersion: "v1", kind: "Pod", metadata: { name, namespace, labels }, spec };
}

function takenFromObjects(kept: Kept[]): TakenGroup {
  const all = (kind: string) => kept.filter((object) => object["kind"] === kind);
  const secrets = new Map(all("Secret").map((secret) => [secret["metadata"].name as string, secret["data"] as Kept]));
  const value = (secret: string, key: string) => Buffer.from(secrets.get(secret)![key], "base64").toString();
  const [pod] = all("Pod") as [Kept];
  const [policy] = all("NetworkPolicy") as [Kept];
  const [service] = all("Service");
  const { spec } = pod;

  const program = (container: Untyped): TakenProgram => ({
    name: container.name,
    image: container.image,
    command: (container.command ?? []).map(expanded),
    environment: Object.fromEntries(
      (container.env ?? []).map((variable: Untyped) => {
        const reference = variable.valueFrom?.secretKeyRef;
        return [variable.name, reference ? value(reference.name, reference.key) : expanded(variable.value ?? "")];
      }),
    ),
    mounts: Object.fromEntries(
      (container.volumeMounts ?? []).map((mount: Untyped) => [
        mount.mountPath,
        `${mount.name}${mount.readOnly ? ":ro" : ""}`,
      ]),
    ),
    ...(container.securityContext.runAsUser ? { runAsUser: container.securityContext.runAsUser } : {}),
  });
  const allowed = (policy["spec"].ingress ?? []).flatMap((rule: Untyped) => rule.ports).map(portText);
  const served = (service?.["spec"].ports ?? []).map(portText);
  if (JSON.stringify(allowed) !== JSON.stringify(served))
    throw new Error("the Service's ports are not those that the NetworkPolicy lets in");
  if (service && matches(service["spec"].selector, pod) !== true) throw new Error("the Service selects no pod");
  if (!matches(policy["spec"].podSelector.matchLabels, pod)) throw new Error("the NetworkPolicy selects no pod");

  return {
    name: pod["metadata"].name,
    restartPolicy: spec.restartPolicy,
    containers: spec.containers.map((container: Untyped) => ({
      ...program(container),
      ports: (container.ports ?? []).map(({ containerPort, protocol }: Untyped) =>
        portText({ port: containerPort, protocol }),
      ),
      requests: amounts(container.resources.requests),
      limits: amounts(container.resources.limits),
      ...(container.livenessProbe ? { liveness: probe(container.livenessProbe) } : {}),
      ...(container.readinessProbe ? { readiness: probe(container.readinessProbe) } : {}),
    })),
    initContainers: (spec.initContainers ?? []).map(program),
    volumes: Object.fromEntries(
      (spec.volumes ?? []).map(({ name, secret }: Untyped) => [
        name,
        secret
          ? Object.fromEntries(secret.items.map(({ key, path }: Untyped) => [path, value(secret.secretName, key)]))
          : "empty",
      ]),
    ),
    published: served,
    registries: Object.fromEntries(
      (spec.imagePullSecrets ?? []).flatMap(({ name }: Untyped) =>
        Object.entries(JSON.parse(value(name, ".dockerconfigjson")).auths).map(([server, { auth }]: Untyped) => [
          server,
          Buffer.from(auth, "base64").toString(),
        ]),
      ),
    ),
  };
}

/** What a kubelet makes of a text that refers to no variable that is there: $$ is $, the rest stays. */
const expanded = (text: string): string => {
  if (/(^|[^$])(\$\$)*\$\(/.test(text)) throw new Error(`Kubernetes would put a variable into "${text}"`);
  return text.replaceAll("$$", "$");
};

const matches = (selector: Record<string, string>, pod: Kept): boolean =>
  Object.entries(selector).every(([label, text]) => pod["metadata"].labels[label] === text);

function amounts({ cpu, memory }: { cpu: string; memory: string }): { cpu: number; memory: number } {
  const [, number, unit] = /^(\d+)(Ki|Mi|Gi)?$/.exec(memory)!;
  const factor = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 }[unit ?? ""] ?? 1;
  return { cpu: cpu.endsWith("m") ? Number(cpu.slice(0, -1)) / 1000 : Number(cpu), memory: Number(number) * factor };
}

function probe({ exec, httpGet, periodSeconds }: Untyped): TakenProbe {
  return {
    how: exec ? exec.command.join(" ") : `GET ${httpGet.scheme.toLowerCase()} :${httpGet.port}${httpGet.path}`,
    ...(periodSeconds ? { periodSeconds } : {}),
  };
}
