/** Azure Container Instances as a backend of groups, up to the request that Microsoft's published client sends. */
import { ContainerGroup, type ContainerGroupArgs } from "../../../../components/azure/index.js";
import { sendThroughClient } from "../../../../components/azure/testing/client.js";
import type { GroupArgs } from "../../../../components/group/model.js";
import { plain } from "../../../../components/internal/testing/plain.js";
import { record, settled } from "../../../../components/internal/testing/recorder.js";
import {
  portText,
  type GroupBackend,
  type TakenGroup,
  type TakenProbe,
  type TakenProgram,
  type Untyped,
} from "./backend.js";

const bytesPerGB = 2 ** 30;

export class AzureBackend implements GroupBackend {
  readonly name = "Azure Container Instances";
  readonly refused = [];
  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  declare(name: string, args: GroupArgs): void {
    new ContainerGroup(name, { ...(args as ContainerGroupArgs), resourceGroupName: "contract" });
  }

  async take(name: string, args: GroupArgs): Promise<TakenGroup> {
    const registrations = await record({ answer: () => ({ instanceView: { state: "Running" } }) });
    this.declare(name, args);
    await settled();
    const { inputs } = registrations.find(({ type }) => type === "azure-native:containerinstance:ContainerGroup")!;
    const { path, body } = await sendThroughClient(plain(inputs) as Record<string, unknown>);
    return takenFromBody(path, body["properties"] as Untyped);
  }
}

function takenFromBody(path: string, properties: Untyped): TakenGroup {
  return {
    name: path.slice(path.lastIndexOf("/") + 1),
    restartPolicy: properties.restartPolicy,
    containers: properties.containers.map(({ name, properties: container }: Untyped) => ({
      ...program(name, container),
      ports: (container.ports ?? []).map(portText),
      requests: amounts(container.resources.requests),
      // ACI's default.
      limits: amounts({ ...container.resources.requests, ...container.resources.limits }),
      ...(container.livenessProbe ? { liveness: probe(container.livenessProbe) } : {}),
      ...(container.readinessProbe ? { readiness: probe(container.readinessProbe) } : {}),
    })),
    initContainers: (properties.initContainers ?? []).map((init: Untyped) => program(init.name, init.properties)),
    volumes: Object.fromEntries(
      (properties.volumes ?? []).map(({ name, secret }: Untyped) => [name, secret ? decoded(secret) : "empty"]),
    ),
    published: (properties.ipAddress?.ports ?? []).map(portText),
    registries: Object.fromEntries(
      (properties.imageRegistryCredentials ?? []).map(({ server, username, password }: Untyped) => [
        server,
        `${username}:${password}`,
      ]),
    ),
  };
}

const amounts = ({ cpu, memoryInGB }: Untyped) => ({ cpu, memory: memoryInGB * bytesPerGB });

const decoded = (files: Record<string, string>) =>
  Object.fromEntries(Object.entries(files).map(([file, text]) => [file, Buffer.from(text, "base64").toString()]));

function program(name: string, container: Untyped): TakenProgram {
  return {
    name,
    image: container.image,
    command: container.command ?? [],
    environment: Object.fromEntries(
      (container.environmentVariables ?? []).map((variable: Untyped) => [
        variable.name,
        variable.secureValue ?? variable.value,
      ]),
    ),
    mounts: Object.fromEntries(
      (container.volumeMounts ?? []).map((mount: Untyped) => [
        mount.mountPath,
        `${mount.name}${mount.readOnly ? ":ro" : ""}`,
      ]),
    ),
    ...(container.securityContext ? { runAsUser: container.securityContext.runAsUser } : {}),
  };
}

function probe({ exec, httpGet, periodSeconds }: Untyped): TakenProbe {
  return {
    how: exec ? exec.command.join(" ") : `GET ${httpGet.scheme ?? "http"} :${httpGet.port}${httpGet.path ?? "/"}`,
    ...(periodSeconds ? { periodSeconds } : {}),
  };
}
