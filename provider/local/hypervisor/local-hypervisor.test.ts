import { expect, it } from "vitest";
import { requireLocal } from "./local-hypervisor.js";

it("takes local and refuses every other uri by name", () => {
  expect(() => requireLocal("local")).not.toThrow();
  for (const uri of ["qemu+ssh://host/system", "", "LOCAL"]) {
    expect(() => requireLocal(uri)).toThrow(/^hypervisor\.uri: ".*" is reserved and not supported yet; use "local"/);
  }
});
