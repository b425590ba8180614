/** The stack of this repository in its experimental environments: the same group, only configuration differs. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { initKeys } from "../../../cli/keys.js";
import { website } from "../../../stacks/website.js";
import { report } from "../../support/acceptance/report.js";
import { EngineProject } from "./project.js";
import { azure, kubernetes } from "./stand-ins.js";
import { packageRoot } from "../../../shared/directories.js";

const image = `registry.example/web@sha256:${"ab".repeat(32)}`;
const dist = path.join(packageRoot(), "dist");

/** The configuration of each environment; it stays when the next one is planned. */
const settingsOf: Record<string, Record<string, string>> = {
  local: {},
  metal: {
    image,
    sshHost: "192.0.2.7",
    sshHostKey: "ssh-ed25519 AAAA",
    sshPrivateKey: "secret:canary",
    diskSerial: "S-1",
    imageDigest: `sha256:${"cd".repeat(32)}`,
  },
  azure: { resourceGroupName: "shops" },
  kubernetes: { namespace: "shops" },
};

const palisade = (settings: Record<string, string>) =>
  Object.fromEntries(Object.entries(settings).map(([key, value]) => [`palisade:${key}`, value]));

type Inputs = Record<string, ReturnType<typeof JSON.parse>>;

/** A container without its image: the local environment builds its own, which has no digest in a preview. */
const containerOf = ({ name, ports, resources }: Inputs) => ({ name, ports, resources });

/** What an environment is asked to run, in the terms of the website's arguments. */
const groupOf: Record<string, (inputs: Inputs) => object> = {
  "palisade:index:GroupDeployment": ({ containers, ports }) => ({ containers: containers.map(containerOf), ports }),
  "azure-native:containerinstance:ContainerGroup": ({ containers, ipAddress }) => ({
    containers: containers.map(containerOf),
    ports: ipAddress.ports,
  }),
  "kubernetes:apps/v1:Deployment": ({ spec }) => ({
    containers: spec.template.spec.containers.map(({ name, ports, resources }: Inputs) => ({
      name,
      ports: ports.map(({ containerPort, protocol }: Inputs) => ({ port: containerPort, protocol })),
      resources: Object.fromEntries(
        Object.entries(resources as Inputs).map(([what, { cpu, memory }]) => [
          what,
          { cpu: parseInt(cpu) / 1000, memoryInGB: Number(memory) / 2 ** 30 },
        ]),
      ),
    })),
  }),
  "kubernetes:core/v1:Service": ({ spec }) => ({
    ports: spec.ports.map(({ port, protocol }: Inputs) => ({ port, protocol })),
  }),
};

describe("M3: the same program", () => {
  const keys = mkdtempSync(path.join(tmpdir(), "palisade-keys-"));
  const options = { standIns: [azure, kubernetes], plugins: ["command"], keys };
  const project = new EngineProject("../../../../stacks/index", "test", options);
  beforeAll(async () => {
    await initKeys(keys);
    await project.init(palisade({ keysDirectory: keys }));
  });
  afterAll(() => {
    project.remove();
    rmSync(keys, { recursive: true });
  });

  it("is planned for each environment; only configuration differs", async () => {
    const started = Date.now();
    await project.configure(palisade({ environment: "metal" }));
    const refused = await project.run(["preview", "--stack", "test"]);
    const plans: Record<string, { types: string[]; group: object }> = {};
    const shown: string[] = [];
    for (const [environment, settings] of Object.entries(settingsOf)) {
      await project.configure(palisade({ environment, ...settings }));
      const steps = (await project.preview("--refresh=false")).filter(({ op }) => op === "create");
      shown.push(JSON.stringify(steps));
      const typed = steps.map(({ urn, newState }) => ({
        type: urn.split("::")[2]!.split("$").at(-1)!,
        inputs: newState?.inputs ?? {},
      }));
      const parts = typed.flatMap(({ type, inputs }) => (type in groupOf ? [groupOf[type]!(inputs)] : []));
      plans[environment] = { types: typed.map(({ type }) => type), group: Object.assign({}, ...parts) as object };
    }

    const { containers, ipAddress } = website(image);
    const wanted = { containers: containers.map(containerOf), ports: ipAddress.ports };
    const same = Object.keys(plans).filter((environment) => isDeepStrictEqual(plans[environment]!.group, wanted));
    const runs = (environment: string, type: string) => plans[environment]!.types.includes(type);
    const placed =
      runs("local", "palisade:index:NestedHost") &&
      runs("metal", "palisade:index:BareMetalHost") &&
      runs("azure", "azure-native:containerinstance:ContainerGroup") &&
      runs("kubernetes", "kubernetes:apps/v1:Deployment");
    const control = /Stack configuration.*/.exec(refused.output)?.[0];
    report({
      table: "clouds",
      id: "M3",
      observed:
        `one program, previewed by the real engine for ${Object.keys(plans).join(", ")} (AKS: a cluster that is there): ` +
        `${Object.values(plans).flatMap(({ types }) => types).length} resources, and in ${same.length} of 4 the website's own arguments`,
      control: `metal without its settings: ${control ?? "taken"}`,
      pass: same.length === 4 && placed && control !== undefined,
      seconds: (Date.now() - started) / 1000,
      evidence: JSON.stringify(plans),
    });
    for (const { group } of Object.values(plans)) expect(group).toEqual(wanted);
    expect(placed, JSON.stringify(plans)).toBe(true);
    expect(refused.output).toContain("palisade:sshHost: is required for the environment metal");
    expect(shown.filter((text) => text.includes("canary"))).toEqual([]);
  });
});

describe("the stack", () => {
  it.each([
    ["azure", azure, { resourceGroupName: "shops" }, ["azure-native:containerinstance:ContainerGroup"]],
    [
      "kubernetes",
      kubernetes,
      { namespace: "shops" },
      [
        "kubernetes:apps/v1:Deployment",
        "kubernetes:core/v1:Secret",
        "kubernetes:core/v1:Service",
        "kubernetes:networking.k8s.io/v1:NetworkPolicy",
      ],
    ],
  ] as const)(
    "comes up in %s, changes nothing the second time, and goes",
    async (environment, standIn, place, types) => {
      const project = new EngineProject("../../../../stacks/index", environment, { standIns: [standIn] });
      try {
        const access = {
          registryServer: "registry.example",
          registryUsername: "shop",
          registryPassword: "secret:canary",
        };
        const settings = Object.entries({ environment, image, ...place, ...access });
        await project.init(Object.fromEntries(settings.map(([key, value]) => [`palisade:${key}`, value])));
        const up = await project.up();
        expect(up.exitCode, up.output).toBe(0);
        expect(await project.changes()).toEqual([]);
        const state = await project.state();
        const made = state.filter(({ custom, type }) => custom && !type.startsWith("pulumi:")).map(({ type }) => type);
        expect(made.sort()).toEqual(types);
        expect([...project.files()].filter(([, text]) => text.includes("canary"))).toEqual([]);
        const destroyed = await project.destroy();
        expect(destroyed.exitCode, destroyed.output).toBe(0);
      } finally {
        project.remove();
      }
    },
  );

  it("loads no package of a cloud for the local environment", () => {
    const loaded = (module: string) =>
      execFileSync(process.execPath, [
        "--eval",
        `require(${JSON.stringify(path.join(dist, module))});
         console.log(Object.keys(require.cache).filter((file) => /@pulumi.(azure-native|kubernetes)/.test(file)).length)`,
      ])
        .toString()
        .trim();
    expect(loaded("stacks/local.js")).toBe("0");
    expect(loaded("stacks/index.js")).toBe("0");
    // Control.
    expect(loaded("stacks/azure.js")).not.toBe("0");
  });
});
