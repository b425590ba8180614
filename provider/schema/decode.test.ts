import { expect, it } from "vitest";
import { PropertyError } from "../backends/errors.js";
import { unknown, type Properties } from "../protocol/resource.js";
import { checkInputs, decodeInputs, storedInputs, whenKnown } from "./decode.js";
import type { RegistryAccess } from "./inputs.js";

const type = "palisade:index:DebianImage";
const given: Properties = { registry: { server: "r.example" }, repository: "web", packages: ["nginx"] };
const complete = { ...given, suite: "trixie", tag: "latest", workingDirectory: "/" };

it("fills in defaults, below lists too", () => {
  expect(checkInputs(type, given)).toEqual({ inputs: complete, failures: [] });
  expect(decodeInputs(type, given)).toEqual(complete);
  const machine = { imageDigest: "d", stateDiskId: "s", publishedPorts: [{ port: 80 }] };
  expect(checkInputs("palisade:index:VirtualMachine", machine).inputs.publishedPorts).toEqual([
    { port: 80, protocol: "TCP", hostAddress: "127.0.0.1", hostPort: 0 },
  ]);
});

it("keeps unknown values at any depth in a preview", () => {
  const previewed = { ...given, registry: { server: unknown }, packages: [unknown, "nginx"] };
  const { inputs, failures } = checkInputs(type, previewed);
  expect(failures).toEqual([]);
  expect(inputs).toEqual({ ...complete, registry: { server: unknown }, packages: [unknown, "nginx"] });
  expect(whenKnown<RegistryAccess>(inputs.registry)).toBeUndefined();
  expect(whenKnown<string>(inputs.repository)).toBe("web");
});

it("reports what does not fit, and makes it unknown", () => {
  const { inputs, failures } = checkInputs(type, { ...given, repository: 7, packages: ["nginx", 8], registry: {} });
  expect(failures.map(({ property }) => property)).toEqual(["registry.server", "repository", "packages[1]"]);
  expect(inputs).toEqual({
    ...complete,
    repository: unknown,
    packages: ["nginx", unknown],
    registry: { server: unknown },
  });
});

it("decodes checked inputs without what Check computes", () => {
  expect(decodeInputs(type, { ...given, inputsHash: "hash" })).toEqual(complete);
});

it("decodes nothing that does not fit or is not known", () => {
  expect(() => decodeInputs(type, { ...given, tag: 1 })).toThrow(PropertyError);
  expect(() => decodeInputs(type, { ...given, tag: unknown })).toThrow("an input is not known yet");
});

it("takes from the state what fits the schema", () => {
  const stored = {
    ...given,
    packages: "nginx",
    tag: "old",
    gone: true,
    registry: { server: "r.example", insecure: true },
  };
  const expected = { repository: "web", registry: { server: "r.example" }, tag: "old", suite: "trixie" };
  expect(storedInputs(type, stored)).toEqual({ ...expected, workingDirectory: "/" });
  expect(storedInputs(type, undefined)).toEqual({});
});
