/** A group's inputs as the agent's contract wants them, and back. */
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { create } from "@bufbuild/protobuf";
import * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { HostConnection } from "../backends/index.js";
import { own } from "../../shared/own-properties.js";
import type { Properties, Value } from "../protocol/resource.js";
import { items, text } from "./rules.js";

const bytesPerGB = 2 ** 30;

const restartPolicies: Record<string, agentv1.RestartPolicy> = {
  Always: agentv1.RestartPolicy.ALWAYS,
  OnFailure: agentv1.RestartPolicy.ON_FAILURE,
  Never: agentv1.RestartPolicy.NEVER,
};
const protocols: Record<string, agentv1.Protocol> = { TCP: agentv1.Protocol.TCP, UDP: agentv1.Protocol.UDP };

const nameOf = <T>(table: Record<string, T>, value: T, fallback: string): string =>
  Object.keys(table).find((name) => table[name] === value) ?? fallback;

function ports(list: Value | undefined): { port: number; protocol: agentv1.Protocol }[] {
  return items(list).map((port) => ({
    port: port["port"] as number,
    protocol: own(protocols, text(port["protocol"]) ?? "TCP")!,
  }));
}

const bytes = (gigabytes: number | undefined): bigint => BigInt(Math.round((gigabytes ?? 0) * bytesPerGB));

/** Where a host reaches a registry that lies on the loopback of the machine that runs Pulumi; empty elsewhere. */
export function registryEndpoint(server: string, loopbackAddress: string | undefined): string {
  const match = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])(:\d+)?$/.exec(server);
  return match && loopbackAddress ? `https://${loopbackAddress}${match[2] ?? ""}` : "";
}

/** Stands for the digest of a container that follows a channel where it does not matter which one that is. */
export const anyDigest = `sha256:${"0".repeat(64)}`;

/**
 * The spec without its secret digest. All inputs are known.
 *
 * @param digests digests of containers that follow a channel, by the containers' names. Default: `anyDigest`.
 */
export function toGroupSpec(inputs: Properties, digests: ReadonlyMap<string, string> = new Map()): agentv1.GroupSpec {
  const host = inputs["host"] as unknown as HostConnection;
  return create(agentv1.GroupSpecSchema, {
    name: inputs["name"] as string,
    restartPolicy: own(restartPolicies, text(inputs["restartPolicy"]) ?? "Always")!,
    ports: ports(inputs["ports"]),
    containers: items(inputs["containers"]).map((container) => {
      const resources = container["resources"] as
        { requests: { cpu: number; memoryInGB: number }; limits?: { cpu?: number; memoryInGB?: number } } | undefined;
      const name = container["name"] as string;
      const follows = container["imageChannel"] as { repository: string; channel: string } | undefined;
      return {
        name,
        image: follows ? `${follows.repository}@${digests.get(name) ?? anyDigest}` : (container["image"] as string),
        channel: follows?.channel ?? "",
        command: (container["command"] as string[] | undefined) ?? [],
        environment: items(container["environmentVariables"]).map((variable) => ({
          name: variable["name"] as string,
          value: text(variable["value"]) ?? "",
          secureValue: text(variable["secureValue"]) ?? "",
          secure: variable["secureValue"] !== undefined,
        })),
        ports: ports(container["ports"]),
        resources: {
          cpuRequest: resources?.requests.cpu ?? 0,
          memoryRequestBytes: bytes(resources?.requests.memoryInGB),
          cpuLimit: resources?.limits?.cpu ?? resources?.requests.cpu ?? 0,
          memoryLimitBytes: bytes(resources?.limits?.memoryInGB ?? resources?.requests.memoryInGB),
        },
      };
    }),
    imageRegistries: items(inputs["imageRegistryCredentials"]).map((registry) => ({
      server: registry["server"] as string,
      endpoint: registryEndpoint(registry["server"] as string, host.loopbackAddress),
      username: text(registry["username"]) ?? "",
      password: text(registry["password"]) ?? "",
      ca: text(registry["ca"]) ?? "",
    })),
  });
}

function portProperties(list: agentv1.Port[]): Value[] {
  return list.map(({ port, protocol }) => ({ port, protocol: nameOf(protocols, protocol, "TCP") }));
}

const gigabytes = (value: bigint): number => Math.round((Number(value) / bytesPerGB) * 1e6) / 1e6;

/** Repository, with its server, and digest of a reference as the agent keeps it: without a tag. */
export function partsOf(image: string): { repository: string; digest: string } {
  const [repository = "", digest = ""] = image.split("@");
  return { repository, digest };
}

/**
 * What a program would have to write for this spec, without secrets; also the canonical form in which wanted and observed
 * specs are compared. A limit equal to its request is left out, as that is the default; the digest of what follows a channel is
 * whoever's who rolls.
 */
export function toProperties(spec: agentv1.GroupSpec): Properties {
  return {
    name: spec.name,
    restartPolicy: nameOf(restartPolicies, spec.restartPolicy, "Always"),
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

/** Folder of the operator's keys, of which the client's key is one: `<folder>/hosts/client.key`. */
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
