import path from "node:path";
import { RuleTester } from "eslint";
import { describe, it } from "vitest";
import { oneWay } from "../../tools/eslint-one-way.mjs";

RuleTester.describe = describe;
RuleTester.it = it;

const at = (filename, target) => ({
  name: `${filename} imports ${target}`,
  filename: path.resolve(filename),
  code: `import { x } from "${target}";`,
});
const refused = (filename, target, room) => ({
  ...at(filename, target),
  errors: [{ message: new RegExp(`imports ${room}: it may import`) }],
});

new RuleTester().run("one-way", oneWay, {
  valid: [
    at("stacks/local.js", "../components/index.js"),
    at("components/host/nested-host.js", "../sdk/index.js"),
    at("components/host/nested-host.js", "../internal/component.js"),
    at("components/host/nested-host.js", "@pulumi/pulumi"),
    at("components/provider/resources/registry.js", "../backends.js"),
    // A folder of the provider that is called as one of the components.
    at("components/provider/image-builder/build.js", "../registry/client.js"),
    at("components/provider/agent-client/client.js", "../../../hosts/api/gen/agent_pb.js"),
    at("components/cli/keys.js", "../internal/directories.js"),
    at("test/engine/lifecycle.js", "../../components/provider/backends.js"),
  ],
  invalid: [
    refused("components/host/nested-host.js", "../provider/backends.js", "provider"),
    refused("components/index.js", "./provider/resources/registry.js", "provider"),
    refused("components/host/nested-host.js", "../../stacks/local.js", "stacks"),
    refused("components/host/nested-host.js", "../../test/fakes/world.js", "test"),
    refused("components/provider/resources/registry.js", "../../registry/registry.js", "components"),
    refused("components/provider/resources/registry.js", "../../sdk/index.js", "sdk"),
    refused("components/provider/main.js", "../../stacks/index.js", "stacks"),
    refused("stacks/local.js", "../components/provider/backends.js", "provider"),
    refused("components/cli/keys.js", "../../stacks/configuration.js", "stacks"),
    {
      ...refused("components/index.js", "", "provider"),
      name: "exports count",
      code: 'export * from "./provider/backends.js";',
    },
    {
      ...refused("components/index.js", "", "provider"),
      name: "dynamic imports count",
      code: 'const x = import("./provider/backends.js");',
    },
  ],
});
