/**
 * A host as a backend of groups: up to the specification that its agent is sent, or, with a real host, as that reports
 * the group which it has taken.
 */
import { expect } from "vitest";
import { ContainerGroup } from "../../../../components/index.js";
import { RestartPolicy, type GroupSpec, type Port } from "../../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { answer, connection } from "../../../../components/internal/testing/answers.js";
import { plain } from "../../../../components/internal/testing/plain.js";
import { record, settled } from "../../../../components/internal/testing/recorder.js";
import type { AgentClient } from "../../../../provider/backends/index.js";
import { toGroupSpec, toProperties } from "../../../../provider/resources/group-spec.js";
import type { Properties } from "../../../../provider/protocol/resource.js";
import { decodeInputs } from "../../../../provider/schema/decode.js";
import type { GroupArgs } from "../../../../components/group/model.js";
import { portText, type GroupBackend, type TakenGroup } from "./backend.js";

type UseAgent = <T>(use: (client: AgentClient) => Promise<T>) => Promise<T>;

export class HostBackend implements GroupBackend {
  readonly name: string;
  readonly refused = [
    "initContainers",
    "volumes",
    "containers[0].livenessProbe",
    "containers[0].readinessProbe",
    "containers[0].securityContext",
    "containers[0].volumeMounts",
  ];
  /** @param agent of a real host. Groups that it takes are removed again. */
  constructor(private readonly agent?: UseAgent) {
    this.name = agent ? "a real host" : "host";
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  declare(name: string, args: GroupArgs): void {
    new ContainerGroup(name, { ...args, host: connection } as ConstructorParameters<typeof ContainerGroup>[1]);
  }

  async take(name: string, args: GroupArgs): Promise<TakenGroup> {
    const registrations = await record({ answer });
    this.declare(name, args);
    await settled();
    const { inputs } = registrations.find(({ type }) => type === "palisade:index:GroupDeployment")!;
    const sent = toGroupSpec(decodeInputs("palisade:index:GroupDeployment", plain(inputs) as Properties));
    return takenFromSpec(this.agent ? await reported(sent, this.agent) : sent);
  }
}

/** Has a host take a group. What it reports has no secrets in it; they are put back from what it was sent. */
async function reported(sent: GroupSpec, agent: UseAgent): Promise<GroupSpec> {
  const { spec } = await agent((client) => client.applyGroup(sent));
  await agent((client) => client.deleteGroup(sent.name));
  spec!.containers.forEach((container, index) => {
    container.environment.forEach((variable, place) => {
      expect(variable.secureValue).toBe("");
      variable.secureValue = sent.containers[index]!.environment[place]!.secureValue;
    });
  });
  spec!.imageRegistries.forEach((registry, index) => {
    expect(registry.password).toBe("");
    registry.password = sent.imageRegistries[index]!.password;
  });
  return spec!;
}

/** What a host's agent was given, or reports. */
export function takenFromSpec(spec: GroupSpec): TakenGroup {
  const ports = (list: Port[]) =>
    (toProperties({ ...spec, ports: list })["ports"] as { port: number; protocol: string }[]).map(portText);
  return {
    name: spec.name,
    restartPolicy: { 0: "Always", 1: "Always", 2: "OnFailure", 3: "Never" }[spec.restartPolicy satisfies RestartPolicy],
    containers: spec.containers.map(({ name, image, command, environment, ports: listening, resources }) => ({
      name,
      image,
      command,
      environment: Object.fromEntries(
        environment.map((variable) => [variable.name, variable.secure ? variable.secureValue : variable.value]),
      ),
      mounts: {},
      ports: ports(listening),
      requests: { cpu: resources!.cpuRequest, memory: Number(resources!.memoryRequestBytes) },
      limits: { cpu: resources!.cpuLimit, memory: Number(resources!.memoryLimitBytes) },
    })),
    initContainers: [],
    volumes: {},
    published: ports(spec.ports),
    registries: Object.fromEntries(
      spec.imageRegistries.map(({ server, username, password }) => [server, `${username}:${password}`]),
    ),
  };
}
