import { expect, it } from "vitest";
import { NestedHost } from "../host/nested-host.js";
import { answer, connection, digest } from "../internal/testing/answers.js";
import { record, settled } from "../internal/testing/recorder.js";
import { ImagePolicy } from "./image-policy.js";

it("goes with its host's machine, where that is known", async () => {
  const registrations = await record({ answer });
  const host = new NestedHost("edge", { image: digest, keysDirectory: "/keys" });
  new ImagePolicy("signed", { host: host.connection, name: "signed", repositories: ["registry.example/*"] });
  new ImagePolicy("plain", { host: connection, name: "plain", repositories: ["registry.example/*"] });
  await settled();
  const policies = registrations.filter(({ type }) => type === "palisade:index:ImagePolicy");
  const deletedWith = Object.fromEntries(
    policies.map(({ inputs, options }) => [inputs["name"], options["deletedWith"]]),
  );
  expect(deletedWith).toEqual({
    signed: "palisade:index:NestedHost$palisade:index:VirtualMachine::edge-machine",
    plain: undefined,
  });
});
