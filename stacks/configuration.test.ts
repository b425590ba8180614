import * as pulumi from "@pulumi/pulumi";
import { afterEach, expect, it } from "vitest";
import { defaults, readConfiguration } from "./configuration.js";

afterEach(() => pulumi.runtime.setAllConfig({}));

it("has defaults for everything", () => {
  pulumi.runtime.setAllConfig({});
  expect(readConfiguration()).toEqual(defaults);
});

it("reads what is set", () => {
  pulumi.runtime.setAllConfig({
    "palisade:environment": "local",
    "palisade:cpus": "4",
    "palisade:protectState": "true",
    "palisade:keysDirectory": "/keys",
    "other:cpus": "none of ours",
  });
  expect(readConfiguration()).toEqual({ ...defaults, cpus: 4, protectState: true, keysDirectory: "/keys" });
});

it.each([
  ["environment", "aks", "must be local or metal or azure or kubernetes"],
  ["cpus", "0", "must be a whole number from 1 to 64"],
  ["cpus", "two", "must be a whole number from 1 to 64"],
  ["memoryMiB", "512", "must be a whole number from 1024 to 1048576"],
  ["stateDiskGiB", "65537", "must be a whole number from 1 to 65536"],
  ["protectState", "yes", "must be true or false"],
  ["forceDestroy", "1", "must be true or false"],
  ["acceleration", "hvf", "must be auto or kvm or tcg"],
  ["hostPort", "65536", "must be a whole number from 0 to 65535"],
  ["keysDirectory", "", "must not be empty"],
])("refuses palisade:%s = %j", (key, value, reason) => {
  pulumi.runtime.setAllConfig({ [`palisade:${key}`]: value });
  expect(() => readConfiguration()).toThrow(`palisade:${key} = ${JSON.stringify(value)}: ${reason}`);
});

it("requires the settings of an environment, and shows no secret", () => {
  pulumi.runtime.setAllConfig({
    "palisade:environment": "azure",
    "palisade:registryPassword": "",
    "palisade:cpus": "0",
  });
  expect(() => readConfiguration()).toThrow(
    [
      "Stack configuration: 4 arguments are not valid",
      "  palisade:registryPassword: must not be empty",
      '  palisade:cpus = "0": must be a whole number from 1 to 64',
      "  palisade:image: is required for the environment azure",
      "  palisade:resourceGroupName: is required for the environment azure",
    ].join("\n"),
  );
});

it("requires the machine and the disk for metal, and never shows the key", () => {
  pulumi.runtime.setAllConfig({
    "palisade:environment": "metal",
    "palisade:sshPrivateKey": "",
    "palisade:sshPort": "0",
  });
  expect(() => readConfiguration()).toThrow(
    [
      "Stack configuration: 6 arguments are not valid",
      '  palisade:sshPort = "0": must be a whole number from 1 to 65535',
      "  palisade:sshPrivateKey: must not be empty",
      "  palisade:image: is required for the environment metal",
      "  palisade:sshHost: is required for the environment metal",
      "  palisade:sshHostKey: is required for the environment metal",
      "  palisade:diskSerial: is required for the environment metal",
    ].join("\n"),
  );
});

it("refuses an unknown setting, and all wrong ones at once", () => {
  pulumi.runtime.setAllConfig({ "palisade:cpu": "4", "palisade:memoryMiB": "1" });
  expect(() => readConfiguration()).toThrow(/2 arguments.*palisade:memoryMiB.*palisade:cpu: no such setting/s);
});
