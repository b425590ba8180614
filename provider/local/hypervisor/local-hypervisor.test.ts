import { expect, it } from "vitest";
import { demandLocal } from "./local-hypervisor.js";

it("takes local and refuses every other uri by name", () => {
  expect(() => demandLocal("local")).not.toThrow();
  for (const uri of ["qemu+ssh://host/system", "", "LOCAL"]) {
    expect(() => demandLocal(uri)).toThrow(/^hypervisor\.uri: ".*" is reserved and not supported yet; use "local"/);
  }
});
