/** Converts a group's inputs into a spec of the agent's contract, and back. */
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { create } from "@bufbuild/protobuf";
import * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { HostConnection } from "../backends/index.js";
import type { Properties, Value } from "../protocol/resource.js";
import { oneOf, protocols } from "./rules.js";
import type { ContainerPort, GroupDeploymentInputs } from "../schema/inputs.js";

const bytesPerGB = 2 ** 30;

export const restartPolicies = ["Always", "OnFailure", "Never"] as const;
const restartPolicyCodes: Record<(typeof restartPolicies)[number], agentv1.RestartPolicy> = {
  Always: agentv1.RestartPolicy.ALWAYS,
  OnFailure: agentv1.RestartPolicy.ON_FAILURE,
  Never: agentv1.RestartPolicy.NEVER,
};
const protocolCodes: Record<(typeof protocols)[number], agentv1.Protocol> = {
  TCP: agentv1.Protocol.TCP,
  UDP: agentv1.Protocol.UDP,
};

const nameOf = <T>(table: Record<string, T>, value: T, fallback: string): string =>
  Object.keys(table).find((name) => table[name] === value) ?? fallback;

function ports(path: string, list: ContainerPort[] = []): { port: number; protocol: agentv1.Protocol }[] {
  return list.map(({ port, protocol }, index) => ({
    port,
    protocol: protocolCodes[oneOf(`${path}[${index}].protocol`, protocol, protocols)],
  }));
}

const bytes = (gigabytes: number): bigint => BigInt(Math.round(gigabytes * bytesPerGB));

/**
 * URL at which a host reaches a registry on the loopback of the machine that runs Pulumi; empty for every other
 * registry.
 */
export function registryEndpoint(server: string, loopbackAddress: string | undefined): string {
  const match = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])(:\d+)?$/.exec(server);
  return match && loopbackAddress ? `https://${loopbackAddress}${match[2] ?? ""}` : "";
}

/** Stands for the digest of a container that follows a channel, where any digest will do. */
export const anyDigest = `sha256:${"0".repeat(64)}`;

/**
 * The spec without its secret digest.
 *
 * @param digests digests of containers that follow a channel, by the containers' names. Default: `anyDigest`.
 */
export function toGroupSpec(
  inputs: GroupDeploymentInputs,
  digests: ReadonlyMap<string, string> = new Map(),
): agentv1.GroupSpec {
  return create(agentv1.GroupSpecSchema, {
    name: inputs.name,
    restartPolicy: restartPolicyCodes[oneOf("restartPolicy", inputs.restartPolicy, restartPolicies)],
    ports: ports("ports", inputs.ports),
    containers: inputs.containers.map((container, index) => {
      const { name, image, imageChannel, command = [], environmentVariables = [] } = container;
      const { requests, limits } = container.resources;
      return {
        name,
        image: imageChannel ? `${imageChannel.repository}@${digests.get(name) ?? anyDigest}` : image,
        channel: imageChannel?.channel ?? "",
        command,
        environment: environmentVariables.map((variable) => ({
          name: variable.name,
          value: variable.value ?? "",
          secureValue: variable.secureValue ?? "",
          secure: variable.secureValue !== undefined,
        })),
        ports: ports(`containers[${index}].ports`, container.ports),
        resources: {
          cpuRequest: requests.cpu,
          memoryRequestBytes: bytes(requests.memoryInGB),
          cpuLimit: limits?.cpu ?? requests.cpu,
          memoryLimitBytes: bytes(limits?.memoryInGB ?? requests.memoryInGB),
        },
      };
    }),
    imageRegistries: (inputs.imageRegistryCredentials ?? []).map((registry) => ({
      server: registry.server,
      endpoint: registryEndpoint(registry.server, inputs.host.loopbackAddress),
      username: registry.username ?? "",
      password: registry.password ?? "",
      ca: registry.ca ?? "",
    })),
  });
}

function portProperties(list: agentv1.Port[]): Value[] {
  return list.map(({ port, protocol }) => ({ port, protocol: nameOf(protocolCodes, protocol, "TCP") }));
}

const gigabytes = (value: bigint): number => Math.round((Number(value) / bytesPerGB) * 1e6) / 1e6;

/** Repository, with its server, and digest of a reference as the agent keeps it: without a tag. */
export function partsOf(image: string): { repository: string; digest: string } {
  const [repository = "", digest = ""] = image.split("@");
  return { repository, digest };
}

/**
 * The inputs that a program would have to write for this spec, without secrets. Desired and observed specs are compared
 * in this form. A limit equal to its request is left out, as that is the default. The digest of a container that
 * follows a channel is left out, as it belongs to the pipeline that moves the channel.
 */
export function toProperties(spec: agentv1.GroupSpec): Properties {
  return {
    name: spec.name,
    restartPolicy: nameOf(restartPolicyCodes, spec.restartPolicy, "Always"),
    ports: portProperties(spec.ports),
    containers: spec.containers.map((container): Properties => {
      const {
        cpuRequest = 0,
        cpuLimit = 0,
        memoryRequestBytes = 0n,
        memoryLimitBytes = 0n,
      } = container.resources ?? {};
      const limits: Properties = {};
      if (cpuLimit && cpuLimit !== cpuRequest) limits["cpu"] = cpuLimit;
      if (memoryLimitBytes && memoryLimitBytes !== memoryRequestBytes)
        limits["memoryInGB"] = gigabytes(memoryLimitBytes);
      return {
        name: container.name,
        ...(container.channel
          ? { imageChannel: { repository: partsOf(container.image).repository, channel: container.channel } }
          : { image: container.image }),
        ...(container.command.length ? { command: container.command } : {}),
        ...(container.environment.length
          ? {
              environmentVariables: container.environment.map((variable): Properties =>
                variable.secure ? { name: variable.name } : { name: variable.name, value: variable.value },
              ),
            }
          : {}),
        ...(container.ports.length ? { ports: portProperties(container.ports) } : {}),
        resources: {
          requests: { cpu: cpuRequest, memoryInGB: gigabytes(memoryRequestBytes) },
          ...(Object.keys(limits).length ? { limits } : {}),
        },
      };
    }),
    imageRegistryCredentials: spec.imageRegistries.map(({ server, username, ca }) => ({
      server,
      ...(username ? { username } : {}),
      ...(ca ? { ca } : {}),
    })),
  };
}

/**
 * The key of the digest over secrets. It lies in the folder of the operator's keys, as the client's key
 * `<folder>/hosts/client.key` does.
 */
function digestKey(host: HostConnection): Buffer {
  const file = path.join(path.dirname(host.clientKeyFile), "..", "hmac.key");
  const key = Buffer.from(readFileSync(file, "utf8").trim(), "hex");
  if (key.length < 32) throw new Error(`${file}: expected 32 bytes in hexadecimal; \`palisade keys init\` makes it`);
  return key;
}

/** HMAC-SHA-256, hex, over all secret values with their places; empty when there are none. */
export function secretDigest(spec: agentv1.GroupSpec, host: HostConnection): string {
  const secrets = [
    ...spec.containers.flatMap((container) =>
      container.environment
        .filter((variable) => variable.secure)
        .map((variable) => ["environment", container.name, variable.name, variable.secureValue]),
    ),
    ...spec.imageRegistries
      .filter((registry) => registry.password !== "")
      .map((registry) => ["registry", registry.server, registry.username, registry.password]),
  ];
  if (secrets.length === 0) return "";
  return createHmac("sha256", digestKey(host)).update(JSON.stringify(secrets)).digest("hex");
}
