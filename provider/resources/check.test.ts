/** Check refuses each wrong field with its path and the reason, and accepts correct inputs. */
import { generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Backends } from "../backends/index.js";
import { unknown, type Properties, type Resource, type Value } from "../protocol/resource.js";
import { resources } from "./index.js";
import { packageSchema, type PropertySpec } from "../schema/schema.js";
import { makeImageKey, makeNetworkPolicy } from "./testing.js";

const digest = `sha256:${"a".repeat(64)}`;
const pair = { certificateFile: "/keys/hosts/ca.crt", keyFile: "/keys/hosts/ca.key" };
const backends = {
  images: { inputsHash: async () => "hash" },
  patcher: { databaseDigest: async () => "database" },
  sealer: { identify: async () => ({ layerKey: "layer", sealKeyId: "seal" }) },
  hostImages: { inputsHash: async () => "hash" },
} as unknown as Backends;

const host = {
  hostId: "h",
  endpoint: "https://127.0.0.1:1",
  certificateAuthority: "pem",
  clientCertificateFile: "/c",
  clientKeyFile: "/k",
  publishedPorts: [],
};

const privateKey = generateKeyPairSync("ec", { namedCurve: "P-256" })
  .privateKey.export({ type: "pkcs8", format: "pem" })
  .toString();

const follower = (change: Properties): Properties => ({
  name: "web",
  imageChannel: { repository: "r.example/web", channel: "stable", ...change },
  resources: { requests: { cpu: 1, memoryInGB: 1 } },
});

const good: Record<string, Properties> = {
  "palisade:index:Registry": { port: 5000 },
  "palisade:index:DebianImage": {
    registry: { server: "127.0.0.1:5000", username: "u", password: "p" },
    repository: "web/nginx",
    packages: ["nginx-light"],
    files: { "/etc/nginx/nginx.conf": "daemon off;" },
  },
  "palisade:index:PatchedImage": {
    registry: { server: "127.0.0.1:5000" },
    repository: "web/nginx",
    digest: `sha256:${"0".repeat(64)}`,
    imageSigner: { certificateFile: "/keys/signer.crt", keyFile: "/keys/signer.key" },
  },
  "palisade:index:SealedImage": {
    registry: { server: "127.0.0.1:5000" },
    repository: "web/nginx",
    digest,
    layerSigner: {
      certificateFile: "/keys/layers/layer.crt",
      pkcs11Uri: "pkcs11:token=layers;object=layer?pin-source=file:/run/pin",
    },
    sealSigner: { certificateFile: "/keys/layers/seal.crt", keyFile: "/keys/layers/seal.key" },
  },
  "palisade:index:HostImage": { build: { keysDirectory: "/keys" } },
  "palisade:index:StateDisk": { sizeGiB: 8 },
  "palisade:index:VirtualMachine": {
    imageDigest: digest,
    stateDiskId: "disk-1",
    certificateAuthority: pair,
    clientIdentity: pair,
    publishedPorts: [{ port: 80 }, { port: 443, hostPort: 8443, protocol: "UDP" }],
  },
  "palisade:index:ImagePolicy": {
    host,
    name: "signed",
    repositories: ["127.0.0.1:5000/web/nginx", "registry.example/team/*", "registry.example/*"],
    keys: [makeImageKey()],
  },
  "palisade:index:HostIntegrity": { host, expected: { mode: "enforce", secureBoot: true } },
  "palisade:index:NetworkPolicy": { host, policy: makeNetworkPolicy("default/web", 80) },
  "palisade:index:GroupDeployment": {
    host,
    name: "web",
    containers: [
      {
        name: "nginx",
        image: `127.0.0.1:5000/web/nginx@${digest}`,
        ports: [{ port: 80 }],
        environmentVariables: [{ name: "A", value: "1" }],
        resources: { requests: { cpu: 0.5, memoryInGB: 0.5 }, limits: { cpu: 1 } },
      },
    ],
    ports: [{ port: 80 }],
    imageRegistryCredentials: [{ server: "127.0.0.1:5000", username: "u", password: "p" }],
  },
};

const resource = (type: string): Resource => resources.find((one) => one.type === `palisade:index:${type}`)!;

/** The good inputs with one place changed; `undefined` removes it. */
function changed(type: string, path: (string | number)[], value: Value | undefined): Properties {
  const copy = structuredClone(good[`palisade:index:${type}`]!) as unknown as Record<string | number, unknown>;
  let at = copy;
  for (const [index, step] of path.slice(0, -1).entries()) {
    at[step] ??= typeof path[index + 1] === "number" ? [] : {};
    at = at[step] as Record<string | number, unknown>;
  }
  const last = path[path.length - 1]!;
  if (value === undefined) delete at[last];
  else at[last] = value;
  return copy as unknown as Properties;
}

async function failures(type: string, inputs: Properties, oldInputs?: Properties) {
  return (await resource(type).check({ backends }, { inputs, oldInputs })).failures;
}

describe("good inputs", () => {
  it.each(Object.keys(good))("%s passes, with defaults filled in", async (type) => {
    const checked = await resources
      .find((one) => one.type === type)!
      .check({ backends }, { inputs: good[type]!, oldInputs: undefined });
    expect(checked.failures).toEqual([]);
    // A second Check changes nothing.
    const again = await resources
      .find((one) => one.type === type)!
      .check({ backends }, { inputs: checked.inputs, oldInputs: checked.inputs });
    expect(again).toEqual(checked);
  });
});

const container = (...rest: (string | number)[]) => ["containers", 0, ...rest];
const rule = (field: string) => ["policy", "endpoints", 0, "ingress", "rules", 0, field];

describe.each<[type: string, path: (string | number)[], value: Value | undefined, property: string, reason: RegExp]>([
  ["Registry", ["port"], 70000, "port", /70000 is out of range: 0 to 65535/],
  ["Registry", ["port"], "5000", "port", /"5000" is not a whole number/],
  ["Registry", ["prot"], 5000, "prot", /did you mean `port`/],
  ["DebianImage", ["packages"], [], "packages", /at least one/],
  ["DebianImage", ["packages"], undefined, "packages", /is required/],
  ["DebianImage", ["packages", 0], "nginx;rm", "packages[0]", /nginx;rm/],
  ["DebianImage", ["repository"], "Web", "repository", /repository name/],
  ["DebianImage", ["registry", "server"], "https://r", "registry.server", /without a scheme/],
  ["DebianImage", ["registry", "server"], undefined, "registry.server", /is required/],
  ["DebianImage", ["tag"], "a b", "tag", /"a b" is not a tag/],
  ["DebianImage", ["suite"], "../x", "suite", /suite/],
  ["DebianImage", ["workingDirectory"], "srv", "workingDirectory", /absolute/],
  ["DebianImage", ["files", "etc/x"], "y", 'files["etc/x"]', /absolute path/],
  ["DebianImage", ["files", "/../x"], "y", 'files["/../x"]', /without '..'/],
  ["DebianImage", ["environment"], { "A=B": "" }, 'environment["A=B"]', /without '='/],
  ["DebianImage", ["environment"], { A: "a\0b" }, 'environment["A"]', /zero byte/],
  ["DebianImage", ["command"], ["a\0b"], "command[0]", /zero byte/],
  ["PatchedImage", ["digest"], "latest", "digest", /digest: sha256/],
  ["PatchedImage", ["repository"], "Web", "repository", /repository name/],
  ["PatchedImage", ["registry", "server"], "https://r", "registry.server", /without a scheme/],
  ["PatchedImage", ["tag"], "a tag", "tag", /is not a tag/],
  ["PatchedImage", ["database"], "vulndb", "database", /an absolute path/],
  ["PatchedImage", ["imageSigner"], undefined, "imageSigner", /required/],
  ["PatchedImage", ["imageSigner", "keyFile"], undefined, "imageSigner", /exactly one of `keyFile`/],
  ["SealedImage", ["digest"], "latest", "digest", /digest: sha256/],
  ["SealedImage", ["repository"], "Web", "repository", /repository name/],
  ["SealedImage", ["registry", "server"], "https://r", "registry.server", /without a scheme/],
  ["SealedImage", ["layerSigner", "keyFile"], "/k", "layerSigner", /exactly one of `keyFile`/],
  ["SealedImage", ["sealSigner", "keyFile"], undefined, "sealSigner", /exactly one of `keyFile`/],
  ["SealedImage", ["sealSigner", "certificateFile"], undefined, "sealSigner.certificateFile", /required/],
  ["SealedImage", ["imageSigner"], { certificateFile: "/c" }, "imageSigner", /exactly one of `keyFile`/],
  ["SealedImage", ["layerSigner", "pkcs11Uri"], "file:/k", "layerSigner.pkcs11Uri", /begin with `pkcs11:`/],
  [
    "SealedImage",
    ["layerSigner", "pkcs11Uri"],
    "pkcs11:object=layer?pin-value=1234",
    "layerSigner.pkcs11Uri",
    /pin-value.*in clear; .*pin-source/,
  ],
  ["HostImage", ["digest"], digest, "digest", /exactly one/],
  ["HostImage", ["build"], undefined, "digest", /exactly one/],
  ["HostImage", ["build", "mode"], "strict", "build.mode", /"strict" is not one of enforce, audit, jit/],
  ["HostImage", ["build", "keysDirectory"], "keys", "build.keysDirectory", /absolute/],
  ["StateDisk", ["sizeGiB"], 0, "sizeGiB", /1 to 65536 GiB/],
  ["StateDisk", ["sizeGiB"], 1.5, "sizeGiB", /whole number/],
  ["StateDisk", ["hypervisor"], { uri: "qemu+ssh://far" }, "hypervisor.uri", /only `local`/],
  ["VirtualMachine", ["imageDigest"], "latest", "imageDigest", /digest/],
  ["VirtualMachine", ["cpus"], 0, "cpus", /1 to 64/],
  ["VirtualMachine", ["memoryMiB"], 512, "memoryMiB", /1024/],
  ["VirtualMachine", ["acceleration"], "xen", "acceleration", /auto, kvm, tcg/],
  ["VirtualMachine", ["powerState"], "paused", "powerState", /running, stopped/],
  ["VirtualMachine", ["publishedPorts", 0, "port"], 0, "publishedPorts[0].port", /1 to 65535/],
  ["VirtualMachine", ["publishedPorts", 0, "protocol"], "SCTP", "publishedPorts[0].protocol", /TCP, UDP/],
  ["VirtualMachine", ["publishedPorts", 0, "hostAddress"], "localhost", "publishedPorts[0].hostAddress", /IPv4/],
  ["VirtualMachine", ["publishedPorts", 0, "port"], 8443, "publishedPorts[0].port", /agent's port/],
  ["VirtualMachine", ["publishedPorts", 1], { port: 80 }, "publishedPorts[1]", /80\/TCP is given twice/],
  ["VirtualMachine", ["certificateAuthority", "keyFile"], undefined, "certificateAuthority.keyFile", /required/],
  ["ImagePolicy", ["name"], "../x", "name", /DNS label/],
  ["ImagePolicy", ["repositories"], [], "repositories", /1 to 256/],
  ["ImagePolicy", ["repositories", 1], "*", "repositories[1]", /server\/prefix\/\*/],
  ["ImagePolicy", ["repositories", 1], "nginx", "repositories[1]", /"nginx" is not/],
  ["ImagePolicy", ["repositories", 1], "registry.example/web:1", "repositories[1]", /without scheme, tag or digest/],
  ["ImagePolicy", ["repositories", 1], "registry.example/*/web", "repositories[1]", /server\/prefix/],
  ["ImagePolicy", ["repositories", 1], "registry.example/../web", "repositories[1]", /server\/prefix/],
  ["ImagePolicy", ["repositories", 1], "https://registry.example/web", "repositories[1]", /without scheme/],
  ["ImagePolicy", ["keys", 0], "key", "keys[0]", /PEM public key/],
  ["ImagePolicy", ["keys", 0], makeImageKey("P-384"), "keys[0]", /ECDSA P-256/],
  ["ImagePolicy", ["keys", 0], makeImageKey() + makeImageKey(), "keys[0]", /one PEM public key/],
  ["ImagePolicy", ["keys", 0], privateKey, "keys[0]", /one PEM public key/],
  ["HostIntegrity", ["expected"], undefined, "expected", /is required/],
  ["HostIntegrity", ["expected", "secureBoot"], "yes", "expected.secureBoot", /boolean|true or false/],
  ["NetworkPolicy", ["policy"], undefined, "policy", /is required/],
  ["NetworkPolicy", ["policy", "version"], 2, "policy.version", /2 is out of range/],
  ["NetworkPolicy", ["policy", "hash"], "abc", "policy.hash", /SHA-256/],
  [
    "NetworkPolicy",
    ["policy", "identities", 1],
    { id: 0x01000001, cidr: "192.0.2.0/24" },
    "policy.identities[1]",
    /twice/,
  ],
  ["NetworkPolicy", rule("action"), "pass", "policy.endpoints[0].ingress.rules[0].action", /allow, deny/],
  ["NetworkPolicy", rule("protocol"), "tcp", "policy.endpoints[0].ingress.rules[0].protocol", /TCP, UDP, SCTP/],
  ["NetworkPolicy", rule("portEnd"), 65536, "policy.endpoints[0].ingress.rules[0].portEnd", /0 to 65535/],
  ["NetworkPolicy", rule("portEnd"), undefined, "policy.endpoints[0].ingress.rules[0].portEnd", /is required/],
  ["GroupDeployment", ["name"], "Web_1", "name", /DNS label/],
  ["GroupDeployment", ["restartPolicy"], "Sometimes", "restartPolicy", /Always, OnFailure, Never/],
  ["GroupDeployment", ["containers"], [], "containers", /1 to 60/],
  ["GroupDeployment", container("image"), "nginx:latest", "containers[0].image", /with a digest/],
  ["GroupDeployment", container("image"), undefined, "containers[0].image", /exactly one of image and imageChannel/],
  [
    "GroupDeployment",
    container("imageChannel"),
    { repository: "r.example/web", channel: "stable" },
    "containers[0]",
    /exactly one of image and imageChannel/,
  ],
  [
    "GroupDeployment",
    ["containers"],
    [follower({ channel: "a/b" })],
    "containers[0].imageChannel.channel",
    /DNS label/,
  ],
  [
    "GroupDeployment",
    ["containers"],
    [follower({ repository: `r.example/web@${digest}` })],
    "containers[0].imageChannel.repository",
    /without tag and digest/,
  ],
  [
    "GroupDeployment",
    ["containers"],
    [follower({ publicKey: privateKey })],
    "containers[0].imageChannel.publicKey",
    /is not one PEM public key/,
  ],
  ["PatchedImage", ["tag"], "palisade-channel-stable", "tag", /are channels/],
  ["PatchedImage", ["channel"], "stable", "layerSigner", /go together/],
  ["PatchedImage", ["sealSigner"], pair, "channel", /go together/],
  ["GroupDeployment", container("imag"), "x", "containers[0].imag", /did you mean `image`/],
  ["GroupDeployment", container("resources"), undefined, "containers[0].resources", /required/],
  ["GroupDeployment", container("resources", "requests", "cpu"), 0, "containers[0].resources.requests.cpu", /cores/],
  [
    "GroupDeployment",
    container("resources", "limits", "cpu"),
    0.25,
    "containers[0].resources.limits.cpu",
    /less than the request of 0.5/,
  ],
  [
    "GroupDeployment",
    container("resources", "limits", "memoryInGB"),
    0.1,
    "containers[0].resources.limits.memoryInGB",
    /less than/,
  ],
  [
    "GroupDeployment",
    container("environmentVariables", 0, "secureValue"),
    "s",
    "containers[0].environmentVariables[0]",
    /exactly one/,
  ],
  [
    "GroupDeployment",
    container("environmentVariables", 0, "name"),
    "A=B",
    "containers[0].environmentVariables[0].name",
    /without '='/,
  ],
  ["GroupDeployment", container("ports", 1), { port: 80 }, "containers[0].ports[1]", /twice/],
  ["GroupDeployment", ["ports", 0, "protocol"], "ICMP", "ports[0].protocol", /TCP, UDP/],
  [
    "GroupDeployment",
    ["imageRegistryCredentials", 0, "server"],
    "http://r",
    "imageRegistryCredentials[0].server",
    /scheme/,
  ],
  [
    "GroupDeployment",
    ["imageRegistryCredentials", 0, "password"],
    undefined,
    "imageRegistryCredentials[0]",
    /go together/,
  ],
  ["GroupDeployment", ["imageRegistryCredentials", 0, "ca"], "no pem", "imageRegistryCredentials[0].ca", /PEM/],
])("%s: %j = %j", (type, path, value, property, reason) => {
  it("is refused by name", async () => {
    const found = await failures(type, changed(type, path, value));
    expect(found.map((failure) => failure.property)).toContain(property);
    expect(found.find((failure) => failure.property === property)!.reason).toMatch(reason);
  });

  it("passes while it is not known", async () => {
    const known = (await failures(type, changed(type, path, unknown))).map((failure) => failure.property);
    // A wrong name is refused with any value, and so is the absence of a property that must be given too.
    if (!/did you mean|exactly one|twice|go together|absolute path|without '/.test(reason.source))
      expect(known).not.toContain(property);
  });
});

/** A place of the inputs, as the schema has it, with a value of another type than its own. */
interface Place {
  path: (string | number)[];
  property: string;
  wrong: Value;
  secret: boolean;
}

/** Inputs that Check itself computes. */
const computed = new Set(["inputsHash", "databaseDigest", "layerKey", "sealKeyId"]);

function placesOf(properties: Record<string, PropertySpec>, before: Omit<Place, "wrong" | "secret">): Place[] {
  const step = (at: typeof before, name: string | number, property: string) => ({ path: [...at.path, name], property });
  const visit = (spec: PropertySpec, at: typeof before): Place[] => {
    const isText = spec.type === "string" || (spec.$ref !== undefined && packageSchema.types[typeOf(spec)]?.enum);
    const own: Place = { ...at, wrong: isText ? 12345 : "canary", secret: spec.secret === true };
    if (spec.items) return [own, ...visit(spec.items, step(at, 0, `${at.property}[0]`))];
    if (spec.additionalProperties)
      return [own, ...visit(spec.additionalProperties, step(at, "/key", `${at.property}["/key"]`))];
    const type = spec.$ref === undefined ? undefined : packageSchema.types[typeOf(spec)];
    return [own, ...(type?.properties ? placesOf(type.properties, at) : [])];
  };
  return Object.entries(properties)
    .filter(([name]) => !computed.has(name))
    .flatMap(([name, spec]) => visit(spec, step(before, name, before.property ? `${before.property}.${name}` : name)));
}
const typeOf = (spec: PropertySpec) => spec.$ref!.slice("#/types/".length);

describe("a value of another type", () => {
  const places = Object.entries(packageSchema.resources).flatMap(([token, { inputProperties }]) =>
    placesOf(inputProperties, { path: [], property: "" }).map((place) => ({
      ...place,
      type: token.slice("palisade:index:".length),
    })),
  );

  it("is tried at every place", () => {
    expect(places.length).toBeGreaterThan(100);
    for (const property of ["containers[0].resources.limits.cpu", "registry.password", "publishedPorts[0].hostPort"])
      expect(places.map((place) => place.property)).toContain(property);
  });

  it.each(places)("is refused by path, value and reason: $type $property", async ({ type, ...place }) => {
    const found = await failures(type, changed(type, place.path, place.wrong));
    const reasons = found.filter(({ property }) => property === place.property).map(({ reason }) => reason);
    const shown = place.secret ? "a secret value" : JSON.stringify(place.wrong);
    expect(reasons, JSON.stringify(found)).toContainEqual(expect.stringMatching(`^${shown} is not (a|an|true|one)\\b`));
    if (place.secret) expect(JSON.stringify(found)).not.toContain(String(place.wrong));
  });
});

describe("rules over more than one place", () => {
  it("gives equal image policies equal inputs", async () => {
    const [one, other] = [makeImageKey(), makeImageKey()];
    const policy = (repositories: string[], keys: string[]) =>
      resource("ImagePolicy").check(
        { backends },
        { inputs: { host, name: "signed", repositories, keys }, oldInputs: undefined },
      );
    const first = await policy(["r.example/b", "r.example/a"], [one, other]);
    const second = await policy(["r.example/a", "r.example/b", "r.example/a"], [`\n${other.trim()}`, one]);
    expect(first.failures).toEqual([]);
    expect(second).toEqual(first);
  });

  it("does not repeat what may be a private key", async () => {
    const found = await failures("ImagePolicy", changed("ImagePolicy", ["keys", 0], privateKey));
    expect(JSON.stringify(found)).not.toContain("BEGIN");
  });

  it("refuses to shrink a disk, with both sizes", async () => {
    expect(await failures("StateDisk", { sizeGiB: 4 }, { sizeGiB: 8 })).toEqual([
      { property: "sizeGiB", reason: expect.stringMatching(/4 is less than the present 8 GiB/) as string },
    ]);
    expect(await failures("StateDisk", { sizeGiB: 16 }, { sizeGiB: 8 })).toEqual([]);
  });

  it("refuses two containers that listen on one port", async () => {
    const inputs = structuredClone(good["palisade:index:GroupDeployment"]!) as { containers: Properties[] };
    inputs.containers.push({ ...inputs.containers[0]!, name: "other" });
    const found = await failures("GroupDeployment", inputs);
    expect(found).toEqual([
      {
        property: "containers[1].ports[0].port",
        reason: expect.stringMatching(/80\/TCP is used by container `nginx`/) as string,
      },
    ]);
  });

  it("refuses a 61st container", async () => {
    const inputs = structuredClone(good["palisade:index:GroupDeployment"]!) as { containers: Properties[] };
    const { ports: _ports, ...one } = inputs.containers[0]!;
    inputs.containers = Array.from({ length: 61 }, (_, index) => ({ ...one, name: `c${index}` }));
    expect(await failures("GroupDeployment", inputs as unknown as Properties)).toEqual([
      { property: "containers", reason: "61 containers; a group has 1 to 60" },
    ]);
  });

  it("never shows the PIN of a key", async () => {
    const uri = "pkcs11:object=layer?pin-value=canary-pin";
    const found = await failures("SealedImage", changed("SealedImage", ["layerSigner", "pkcs11Uri"], uri));
    expect(found).toHaveLength(1);
    expect(JSON.stringify(found)).not.toContain("canary-pin");
  });

  it("never shows a secret that is of the wrong type", async () => {
    const found = await failures("DebianImage", changed("DebianImage", ["registry", "password"], 12345));
    expect(JSON.stringify(found)).not.toContain("12345");
    expect(found[0]!.property).toBe("registry.password");
  });
});
