/** For tests: all resources on the fault-injecting backends, reached over gRPC as the engine does. */
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { sealed } from "../../components/policy/compiled.js";
import { createFakeBackends } from "../../test/support/fakes/backends.js";
import { World } from "../../test/support/fakes/world.js";
import type { Properties } from "../protocol/resource.js";
import type { Path } from "../protocol/marshal.js";
import { TestClient } from "../protocol/testing.js";
import { resources } from "./index.js";
import { schemaText } from "../schema/schema.js";

/** A new public key of the kind that image policies name, PEM. */
export function makeImageKey(namedCurve = "P-256"): string {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve });
  return publicKey.export({ type: "spki", format: "pem" }).toString();
}

/** A compiled policy that lets one port of a group be reached. */
export function makeNetworkPolicy(name: string, port: number): Properties {
  const rule = {
    precedence: 1,
    action: "allow",
    identity: 0,
    protocol: "TCP",
    portStart: port,
    portEnd: port,
  } as const;
  const policy = sealed({
    version: 1,
    identities: [{ id: 0x01000000, cidr: "192.0.2.0/24" }],
    endpoints: [
      { name, identity: 256, ingress: { enforce: true, rules: [rule] }, egress: { enforce: false, rules: [] } },
    ],
  });
  return policy as unknown as Properties;
}

/** What the engine keeps of a resource. */
export interface State {
  id: string;
  inputs: Properties;
  outputs: Properties;
}
export interface Made {
  type: string;
  /** What the program gave. */
  given: Properties;
  state: State;
}

export class Fixture {
  readonly folder = mkdtempSync(path.join(tmpdir(), "palisade-resources-"));
  readonly keys = path.join(this.folder, "keys");
  readonly world = new World(path.join(this.folder, "world"));
  client!: TestClient;
  /** A public key as cosign makes it. */
  readonly imageKey = makeImageKey();

  async start(): Promise<void> {
    mkdirSync(path.join(this.keys, "hosts"), { recursive: true });
    for (const name of ["ca.crt", "ca.key", "client.crt", "client.key"]) {
      writeFileSync(path.join(this.keys, "hosts", name), "");
    }
    mkdirSync(path.join(this.keys, "layers"), { recursive: true });
    for (const name of ["layer", "seal"]) {
      for (const kind of ["crt", "key"]) writeFileSync(path.join(this.keys, "layers", `${name}.${kind}`), name);
    }
    writeFileSync(path.join(this.keys, "hmac.key"), "ab".repeat(32));
    const backends = createFakeBackends(this.world);
    this.client = await TestClient.start({ backends: () => backends, resources, schema: schemaText });
  }

  async stop(): Promise<void> {
    await this.client.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  pair(name: string, role = "hosts"): Properties {
    return {
      certificateFile: path.join(this.keys, `${role}/${name}.crt`),
      keyFile: path.join(this.keys, `${role}/${name}.key`),
    };
  }

  /** Check and Create, as the engine does them for a new resource. */
  async make(name: string, given: Properties, secrets: Path[] = []): Promise<Made> {
    const type = `palisade:index:${name}`;
    const checked = await this.client.check(type, given, { secrets });
    if (checked.failures.length) throw new Error(JSON.stringify(checked.failures));
    const inputs = checked.inputs.properties;
    const created = await this.client.create(type, inputs, { secrets });
    return { type, given, state: { id: created.id, inputs, outputs: created.outputs.properties } };
  }

  /** One of each resource, each built on those before. */
  async makeAll(): Promise<Made[]> {
    const registry = await this.make("Registry", {});
    const { server, username, password, ca } = registry.state.outputs as Record<string, string>;
    const access = { server: server!, username: username!, password: password!, ca: ca! };
    const image = await this.make("DebianImage", {
      registry: access,
      repository: "web/nginx",
      packages: ["nginx-light"],
    });
    const patch = await this.make("PatchedImage", {
      registry: access,
      repository: "web/nginx",
      digest: image.state.outputs["digest"]!,
      channel: "stable",
      layerSigner: this.pair("layer", "layers"),
      sealSigner: this.pair("seal", "layers"),
      imageSigner: this.pair("seal", "layers"),
    });
    const seal = await this.make("SealedImage", {
      registry: access,
      repository: "web/nginx",
      digest: image.state.outputs["digest"]!,
      layerSigner: this.pair("layer", "layers"),
      sealSigner: this.pair("seal", "layers"),
    });
    const hostImage = await this.make("HostImage", { build: { keysDirectory: this.keys } });
    const disk = await this.make("StateDisk", {});
    const machine = await this.make("VirtualMachine", {
      imageDigest: hostImage.state.outputs["imageDigest"]!,
      stateDiskId: disk.state.id,
      publishedPorts: [{ port: 80 }],
      certificateAuthority: this.pair("ca"),
      clientIdentity: this.pair("client"),
    });
    const group = await this.make("GroupDeployment", {
      host: machine.state.outputs["connection"]!,
      name: "web",
      containers: [
        {
          name: "nginx",
          image: image.state.outputs["reference"]!,
          environmentVariables: [{ name: "TOKEN", secureValue: "canary-environment" }],
          resources: { requests: { cpu: 0.5, memoryInGB: 0.5 } },
        },
      ],
      ports: [{ port: 80 }],
      imageRegistryCredentials: [{ server: server!, username: username!, password: password! }],
    });
    const policy = await this.make("ImagePolicy", {
      host: machine.state.outputs["connection"]!,
      name: "web",
      repositories: [`${server!}/web/*`],
      keys: [this.imageKey],
    });
    const network = await this.make("NetworkPolicy", {
      host: machine.state.outputs["connection"]!,
      policy: makeNetworkPolicy("default/web", 80),
    });
    const integrity = await this.make("HostIntegrity", {
      host: machine.state.outputs["connection"]!,
      expected: machine.state.outputs["expectedIntegrity"]!,
    });
    return [registry, image, patch, seal, hostImage, disk, machine, group, policy, network, integrity];
  }
}
