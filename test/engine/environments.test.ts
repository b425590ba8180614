/** The stack of this repository in its experimental environments: the same group, only configuration differs. */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { EngineProject } from "./project.js";
import { azure, kubernetes } from "./stand-ins.js";

const image = `registry.example/web@sha256:${"ab".repeat(32)}`;
const dist = path.resolve(__dirname, "../../dist");

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
      const project = new EngineProject("../../../stacks/index", environment, { standIns: [standIn] });
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
