/** The agent of a host in a World. Its programs are those of hosts/agent/internal/testhost. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { clone, create, equals, fromJson, toJson, type JsonValue } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { canonicalJson } from "../../../components/policy/compiled.js";
import {
  ForeignHostError,
  InvalidFieldsError,
  UnreachableHostError,
  type AgentClient,
  type HostConnection,
  type VirtualMachineSpec,
} from "../../../provider/backends/index.js";
import * as agentv1 from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import * as images from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import * as network from "../../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { normalized, redacted, refusalOf, violationsOf, type Violation } from "./group-spec.js";
import { isAllowed, normalizedPolicy, policyViolations } from "./image-policy.js";
import { expectedIntegrity, factsOfMachine } from "./integrity.js";
import { World, type Thing } from "./world.js";

/** The CA of every host in a World. */
export const hostAuthority = "-----BEGIN CERTIFICATE-----\nfake\n-----END CERTIFICATE-----\n";

/** Days. */
const certificateLife = 30;
const log = ["starting", "cannot open configuration"];
const nobody = { backend: "", project: "", stack: "", urn: "" };

/** The policy as JSON. */
type StoredPolicy = Record<string, JsonValue>;

interface StoredNetworkPolicy {
  hash: string;
  compiled: string;
}

interface StoredGroup {
  /** Without secret values. */
  spec: JsonValue;
  generation: number;
  /** Hash of the secret values. Absent in worlds of earlier versions. */
  secrets?: string;
}

interface ObservedGroup {
  restarts?: number;
  /** Its containers were stopped, or they crash. */
  stopped?: boolean;
  crashing?: boolean;
  /** For each image that the host has not run since the declaration, the reason. */
  refused?: Record<string, string>;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Id of the host that a machine runs. */
export function hostIdOf(world: World, { spec }: Thing<VirtualMachineSpec>): string {
  return String(world.get("state-disks", spec.stateDiskId)?.observed["hostId"] ?? spec.stateDiskId);
}

/** Changes the digest of a group's images on its host, as a pipeline does that rolls. */
export function rollGroup(world: World, id: string, digest: string): void {
  const thing = world.get<StoredGroup>("groups", id)!;
  const spec = fromJson(agentv1.GroupSpecSchema, thing.spec.spec);
  for (const container of spec.containers) container.image = `${container.image.split("@")[0]}@${digest}`;
  const rolled = {
    ...thing.spec,
    spec: toJson(agentv1.GroupSpecSchema, spec),
    generation: thing.spec.generation + 1,
  };
  world.put("groups", { ...thing, spec: rolled });
}

/** How a container's program ends; undefined for one that runs on. */
function exitCodeOf({ command }: agentv1.Container): number | undefined {
  return command[0] === "/crash" ? 1 : command[0] === "/done" ? 0 : undefined;
}

const secretsOf = (spec: agentv1.GroupSpec): string =>
  sha256(
    JSON.stringify([
      spec.containers.map(({ environment }) => environment.map(({ secureValue }) => secureValue)),
      spec.imageRegistries.map(({ password }) => password),
    ]),
  );

export class FakeAgent implements AgentClient {
  private readonly name: string;

  constructor(
    private readonly world: World,
    private readonly connection: HostConnection,
  ) {
    this.name = `host ${connection.hostId} at ${connection.endpoint}`;
    for (const field of ["certificateFile", "keyFile"] as const) {
      const file = field === "keyFile" ? connection.clientKeyFile : connection.clientCertificateFile;
      try {
        readFileSync(file);
      } catch (error) {
        const reason = (error as Error).message;
        throw new Error(`clientIdentity.${field}: ${file} cannot be read: ${reason}; run \`palisade keys init\``);
      }
    }
  }

  private reach(): Thing<VirtualMachineSpec> {
    const { hostId, endpoint, certificateAuthority } = this.connection;
    const machine = this.world
      .list<VirtualMachineSpec>("virtual-machines")
      .find(({ id }) => endpoint.endsWith(`/${id}`));
    const isSilent = machine?.observed["bootPolls"] || machine?.observed["unreachable"];
    if (!machine || isSilent || machine.observed["powerState"] === "stopped") {
      throw new UnreachableHostError(`${this.name}: does not answer`);
    }
    const isOther = hostIdOf(this.world, machine) !== hostId || certificateAuthority !== hostAuthority;
    if (machine.observed["foreign"] || isOther) {
      throw new ForeignHostError(`${this.name}: something else answers there: another host answers`);
    }
    return machine;
  }

  private fail(reason: string): never {
    throw new Error(`${this.name}: ${reason}`);
  }

  private refuse(violations: Violation[]): void {
    if (violations.length === 0) return;
    const list = violations.map(({ path, reason }) => `${path}: ${reason}`).join("; ");
    throw new InvalidFieldsError(`${this.name} refuses it: ${list}`, violations);
  }

  private id(name: string): string {
    return `${this.connection.hostId}/${name}`;
  }

  private stored(name: string): (Thing<StoredGroup> & { observed: ObservedGroup }) | undefined {
    return this.world.get<StoredGroup>("groups", this.id(name));
  }

  private specs(): agentv1.GroupSpec[] {
    return this.world
      .list<StoredGroup>("groups")
      .filter(({ id }) => id.startsWith(this.id("")))
      .map(({ spec }) => fromJson(agentv1.GroupSpecSchema, spec.spec));
  }

  private policies(): images.ImagePolicy[] {
    return this.world
      .list<StoredPolicy>("image-policies")
      .filter(({ id }) => id.startsWith(this.id("")))
      .map(({ spec, observed }) => fromJson(images.ImagePolicySchema, { ...spec, ...(observed as StoredPolicy) }));
  }

  async getHost(): Promise<agentv1.GetHostResponse> {
    this.reach();
    const notAfter = new Date(Date.now() + certificateLife * 24 * 3600 * 1000);
    return create(agentv1.GetHostResponseSchema, {
      hostId: this.connection.hostId,
      ready: true,
      kernelVersion: expectedIntegrity.kernelVersion,
      certificateNotAfter: timestampFromDate(notAfter),
    });
  }

  async getIntegrity(): Promise<agentv1.GetIntegrityResponse> {
    const facts = factsOfMachine(this.reach());
    const { secureBoot, lockdown, mode, rootHash, verityMount: mountPoint, selinux } = facts;
    return create(agentv1.GetIntegrityResponseSchema, {
      ...{ secureBoot, lockdown, mode },
      root: { rootHash, mountPoint, signatureVerified: facts.rootHashSignatureVerified, signaturesRequired: true },
      ipe: {
        activePolicy: facts.ipePolicy,
        policyVersion: facts.ipePolicyVersion,
        policyDigest: facts.ipePolicyDigest,
        enforcing: facts.ipeEnforcing,
      },
      selinux: { enabled: selinux !== "disabled", enforcing: selinux === "enforcing", policy: "default" },
      layers: Array.from({ length: facts.sealedLayers }, (_, index) => ({ name: `palisade-layer-${index}` })),
    });
  }

  async applyGroup(given: agentv1.GroupSpec, dryRun = false, expectedGeneration = 0n): Promise<agentv1.Group> {
    this.reach();
    const spec = normalized(given);
    this.refuse(violationsOf(spec));
    const refusal = refusalOf(
      spec,
      this.specs().filter(({ name }) => name !== spec.name),
    );
    if (refusal !== undefined) this.fail(refusal);
    const roll = dryRun ? undefined : this.world.takeRoll();
    if (roll !== undefined) rollGroup(this.world, this.id(spec.name), roll);
    const before = this.stored(spec.name);
    const present = before?.spec.generation ?? 0;
    if (expectedGeneration !== 0n && Number(expectedGeneration) !== present) {
      const seen = `group "${spec.name}" has generation ${present}, not ${expectedGeneration}`;
      this.fail(`expectedGeneration: ${seen}: it was declared anew meanwhile`);
    }
    const kept = redacted(spec);
    const secrets = secretsOf(spec);
    const unchanged =
      before !== undefined &&
      equals(agentv1.GroupSpecSchema, normalized(fromJson(agentv1.GroupSpecSchema, before.spec.spec)), kept) &&
      (before.spec.secrets ?? secrets) === secrets;
    const generation = unchanged ? present : present + 1;
    if (dryRun) {
      const status = this.group(spec.name)?.status;
      return create(agentv1.GroupSchema, { spec: kept, generation: BigInt(generation), ...(status ? { status } : {}) });
    }
    const refused = unchanged ? before.observed.refused : {};
    const refusedNow = Object.fromEntries(
      spec.containers
        // Running containers keep running: an image is checked when its container starts.
        .filter(({ image }) => (!unchanged || refused?.[image]) && !isAllowed(this.policies(), image))
        .map(({ image }) => [image, `image ${image}: no image policy of this host names its repository`]),
    );
    this.world.put<StoredGroup>("groups", {
      id: this.id(spec.name),
      owner: nobody,
      finished: true,
      spec: unchanged ? before.spec : { spec: toJson(agentv1.GroupSpecSchema, kept), generation, secrets },
      observed: { ...(unchanged ? { restarts: before.observed.restarts } : {}), refused: refusedNow },
    });
    return this.group(spec.name)!;
  }

  /** Advances a container that crashes again and again, each time that it is observed. */
  private restart(name: string): void {
    const thing = this.stored(name);
    if (!thing) return;
    this.world.put("groups", {
      ...thing,
      observed: { ...thing.observed, restarts: (thing.observed.restarts ?? 0) + 1 },
    });
  }

  private group(name: string): agentv1.Group | undefined {
    const thing = this.stored(name);
    if (!thing) return undefined;
    const { observed } = thing;
    const spec = fromJson(agentv1.GroupSpecSchema, thing.spec.spec);
    const generation = BigInt(thing.spec.generation);
    const isRefused = spec.containers.some(({ image }) => observed.refused?.[image] !== undefined);
    const containers = spec.containers.map((container) => this.container(spec, container, thing));
    const isDone = containers.every(({ phase }) => phase === agentv1.ContainerPhase.TERMINATED) && !observed.stopped;
    let phase = agentv1.GroupPhase.RUNNING;
    if (isDone) phase = agentv1.GroupPhase.SUCCEEDED;
    if (isDone && containers.some(({ exitCode }) => exitCode !== 0)) phase = agentv1.GroupPhase.FAILED;
    if (observed.stopped === true || isRefused) phase = agentv1.GroupPhase.PENDING;
    return create(agentv1.GroupSchema, {
      spec,
      generation,
      // No part of the declaration is put into effect while one of its images is refused.
      status: { observedGeneration: isRefused ? 0n : generation, phase, address: "10.88.0.2", containers },
    });
  }

  private container(
    spec: agentv1.GroupSpec,
    { name, image, ...rest }: agentv1.Container,
    thing: Thing<StoredGroup> & { observed: ObservedGroup },
  ): agentv1.ContainerStatus {
    const { refused, stopped, crashing, restarts = 0 } = thing.observed;
    const { WAITING, TERMINATED, RUNNING } = agentv1.ContainerPhase;
    const status = (fields: Partial<agentv1.ContainerStatus>) =>
      create(agentv1.ContainerStatusSchema, { name, ...(fields as object) });
    if (refused?.[image] !== undefined) {
      return status({ phase: WAITING, reason: "ImageRefused", message: refused[image] });
    }
    const made = {
      containerId: sha256(`${thing.id}/${name} ${thing.spec.generation}`),
      imageDigest: image.slice(image.indexOf("@") + 1),
    };
    const exitCode = crashing ? 1 : exitCodeOf({ name, image, ...rest });
    if (exitCode === undefined) {
      return status({ ...made, phase: stopped ? TERMINATED : RUNNING, restartCount: restarts });
    }
    const { restartPolicy } = spec;
    const staysEnded =
      restartPolicy === agentv1.RestartPolicy.NEVER ||
      (restartPolicy === agentv1.RestartPolicy.ON_FAILURE && exitCode === 0);
    if (staysEnded) {
      return status({ ...made, phase: TERMINATED, exitCode, reason: exitCode === 0 ? "Completed" : "Error" });
    }
    // The host starts it again at once, before it waits for the first time.
    return status({ ...made, phase: WAITING, exitCode, reason: "CrashLoopBackOff", restartCount: restarts + 1 });
  }

  async getGroup(name: string): Promise<agentv1.Group | undefined> {
    this.reach();
    return this.group(name);
  }

  async deleteGroup(name: string): Promise<void> {
    this.reach();
    this.world.remove("groups", this.id(name));
  }

  async *watchGroup(name: string, signal: AbortSignal): AsyncIterable<agentv1.Group> {
    for (let isKnown = false; ; isKnown = true) {
      signal.throwIfAborted();
      this.reach();
      await this.world.reach("group-applied", signal);
      const group = this.group(name);
      if (!group) this.fail(`group "${name}" ${isKnown ? "was deleted" : "is not declared on this host"}`);
      yield group;
      if (group.status?.containers.some(({ reason }) => reason === "CrashLoopBackOff")) this.restart(name);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async getLogs(name: string, container: string, tailLines: number): Promise<string> {
    this.reach();
    const group = this.group(name);
    if (!group) this.fail(`group "${name}" is not declared on this host`);
    const status = group.status!.containers.find((one) => one.name === container);
    if (!status) this.fail(`group "${name}" has no container "${container}"`);
    const lines = status.containerId === "" ? [] : log.slice(-tailLines);
    return lines.map((line) => `${line}\n`).join("");
  }

  async applyImagePolicy(given: images.ImagePolicy, dryRun = false): Promise<images.ApplyImagePolicyResponse> {
    this.reach();
    const policy = normalizedPolicy(given);
    this.refuse(policyViolations(policy));
    const before = await this.getImagePolicy(policy.name);
    policy.generation = before?.generation ?? 0n;
    if (!before || !equals(images.ImagePolicySchema, policy, before)) policy.generation++;
    if (!dryRun) {
      this.world.put<StoredPolicy>("image-policies", {
        id: this.id(policy.name),
        owner: nobody,
        finished: true,
        spec: toJson(images.ImagePolicySchema, policy) as StoredPolicy,
        observed: {},
      });
    }
    const declared = [policy, ...this.policies().filter(({ name }) => name !== policy.name)];
    const references = this.specs().flatMap(({ containers }) => containers.map(({ image }) => image));
    return create(images.ApplyImagePolicyResponseSchema, {
      policy: clone(images.ImagePolicySchema, policy),
      refusedImages: [...new Set(references)]
        .filter((reference) => !isAllowed(declared, reference))
        .map((reference) => ({
          reference,
          reason: "ImageNotAllowed",
          message: "no image policy of this host names its repository",
        })),
    });
  }

  async getImagePolicy(name: string): Promise<images.ImagePolicy | undefined> {
    this.reach();
    return this.policies().find((policy) => policy.name === name);
  }

  async deleteImagePolicy(name: string): Promise<void> {
    this.reach();
    this.world.remove("image-policies", this.id(name));
  }

  private networkPolicy(): Thing<StoredNetworkPolicy> | undefined {
    return this.world.get<StoredNetworkPolicy>("network-policies", this.connection.hostId);
  }

  async applyNetworkPolicy(compiled: string, hash: string, dryRun = false): Promise<network.ApplyPolicyResponse> {
    this.reach();
    const { hash: own, ...policy } = JSON.parse(compiled) as { hash: string; endpoints: { name: string }[] };
    const right = sha256(canonicalJson(policy));
    if (own !== right) this.fail(`policy.hash: "${own}" is not the hash of this policy (${right}); compile it again`);
    if (own !== hash) this.fail(`expected_hash: "${hash}" is not the policy's hash, "${own}"`);
    if (!dryRun) {
      this.world.put<StoredNetworkPolicy>("network-policies", {
        id: this.connection.hostId,
        owner: nobody,
        finished: true,
        spec: { hash, compiled },
        // Damage beside the policy stays until it is repaired.
        observed: { problems: this.networkPolicy()?.observed["problems"] },
      });
    }
    const connected = this.specs().map(({ name }) => `default/${name}`);
    return create(network.ApplyPolicyResponseSchema, {
      policyHash: hash,
      unnamedEndpoints: connected.filter((name) => !policy.endpoints.some((endpoint) => endpoint.name === name)),
    });
  }

  async getNetworkPolicy(): Promise<string | undefined> {
    this.reach();
    return this.networkPolicy()?.spec.compiled;
  }

  async deleteNetworkPolicy(): Promise<void> {
    this.reach();
    this.world.remove("network-policies", this.connection.hostId);
  }

  async getNetwork(): Promise<network.GetNetworkResponse> {
    this.reach();
    const thing = this.networkPolicy();
    return create(network.GetNetworkResponseSchema, {
      policyDeclared: thing !== undefined,
      policyHash: (thing?.observed["policyHash"] as string | undefined) ?? thing?.spec.hash ?? "",
      problems: (thing?.observed["problems"] as string[] | undefined) ?? [],
    });
  }

  async repairNetwork(): Promise<string[]> {
    const { problems } = await this.getNetwork();
    const thing = this.networkPolicy();
    if (thing) this.world.put("network-policies", { ...thing, observed: {} });
    return problems;
  }

  // Disturbances of this world stay anyway.
  async suspendReconcile(seconds: number): Promise<void> {
    this.reach();
    const most = 3600;
    if (seconds < 0 || seconds > most) this.fail(`duration: ${seconds}s is not between 0 and 1h0m0s`);
  }

  close(): void {}
}
