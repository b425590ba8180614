import { DiffResponse, PropertyDiff } from "@pulumi/pulumi/proto/provider_pb.js";
import { describe, expect, it } from "vitest";
import { isIgnored, toDiffResponse } from "./difference.js";

describe("differences for the engine", () => {
  it("none: no changes", () => {
    expect(toDiffResponse([], []).getChanges()).toBe(DiffResponse.DiffChanges.DIFF_NONE);
  });

  it("carry path, kind and whether an input or the observed state differs", () => {
    const response = toDiffResponse(
      [
        { path: "containers[0].image", kind: "update", inputDiff: true },
        { path: "observedContainers[0].state", kind: "update", inputDiff: false },
        { path: "ports[1]", kind: "add", inputDiff: true },
        { path: "host.hostId", kind: "update-replace", inputDiff: true },
      ],
      [],
    );
    expect(response.getDetaileddiffMap().getLength()).toBe(4);
    const state = response.getDetaileddiffMap().get("observedContainers[0].state");
    expect([state?.getKind(), state?.getInputdiff()]).toEqual([PropertyDiff.Kind.UPDATE, false]);
    expect(response.getDetaileddiffMap().get("ports[1]")?.getKind()).toBe(PropertyDiff.Kind.ADD);
    expect(response.getDetaileddiffMap().get("host.hostId")?.getKind()).toBe(PropertyDiff.Kind.UPDATE_REPLACE);
    expect(response.getDiffsList()).toEqual(["containers", "observedContainers", "ports", "host"]);
    expect(response.getReplacesList()).toEqual(["host"]);
    expect(response.getDeletebeforereplace()).toBe(true);
  });

  it("in ignored properties are left out, observed ones too", () => {
    const drift = { path: "powerState", kind: "update", inputDiff: false } as const;
    expect(toDiffResponse([drift], ["powerState"]).getChanges()).toBe(DiffResponse.DiffChanges.DIFF_NONE);
  });

  it.each([
    ["containers[0].image", "containers", true],
    ["containers[0].image", "containers[0]", true],
    ["containers[0].image", "containers[*].image", true],
    ["containers[10].image", "containers[1]", false],
    ["containersExtra", "containers", false],
    ["host.hostId", "host.*", true],
    ["a[b", "a[b", true],
    ["a.b", "a+b", false],
    ["a".repeat(5_000), "*a*a*a*a*a*a*a*a*b", false],
  ])("%s under ignoreChanges %s: %s", (path, ignored, expected) => {
    expect(isIgnored(path, [ignored])).toBe(expected);
  });
});
