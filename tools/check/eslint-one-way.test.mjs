import path from "node:path";
import { RuleTester } from "eslint";
import { describe, it } from "vitest";
import { oneWay } from "./eslint-one-way.mjs";

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
    at("components/host/nested-host.js", "../../sdk/index.js"),
    at("components/host/nested-host.js", "../internal/component.js"),
    at("components/host/nested-host.js", "@pulumi/pulumi"),
    at("provider/resources/registry.js", "../backends/index.js"),
    at("provider/local/image-builder/build.js", "../registry/client.js"),
    at("provider/local/agent-client/client.js", "../../../hosts/api/gen/agent_pb.js"),
    at("provider/main.js", "./local/index.js"),
    at("cli/keys.js", "../shared/directories.js"),
    at("command-plugin/ssh.js", "../provider/system/command.js"),
    at("test/layers/engine/lifecycle.js", "../../../provider/backends/index.js"),
  ],
  invalid: [
    refused("components/host/nested-host.js", "../../provider/backends/index.js", "provider/backends"),
    refused("components/index.js", "../provider/main.js", "provider"),
    refused("components/host/nested-host.js", "../../stacks/local.js", "stacks"),
    refused("components/host/nested-host.js", "../../test/support/fakes/world.js", "test"),
    refused("provider/resources/registry.js", "../../components/index.js", "components"),
    refused("provider/resources/registry.js", "../../sdk/index.js", "sdk"),
    refused("provider/resources/registry.js", "../local/registry/client.js", "provider/local"),
    refused("provider/protocol/provider.js", "../resources/registry.js", "provider/resources"),
    refused("provider/local/registry/client.js", "../../resources/registry.js", "provider/resources"),
    refused("provider/main.js", "../stacks/index.js", "stacks"),
    refused("stacks/local.js", "../provider/backends/index.js", "provider/backends"),
    refused("stacks/local.js", "../shared/directories.js", "shared"),
    refused("cli/keys.js", "../stacks/configuration.js", "stacks"),
    refused("command-plugin/ssh.js", "../provider/local/index.js", "provider/local"),
    refused("shared/text.js", "../components/index.js", "components"),
    {
      ...refused("components/index.js", "", "provider"),
      name: "exports count",
      code: 'export * from "../provider/main.js";',
    },
    {
      ...refused("components/index.js", "", "provider"),
      name: "dynamic imports count",
      code: 'const x = import("../provider/main.js");',
    },
  ],
});
