import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { plain } from "../internal/testing/plain.js";
import { record, type Registration, settled, valueOf } from "../internal/testing/recorder.js";
import { ContainerGroup, type ContainerGroupArgs } from "./container-group.js";
import { container, everything, minimal, refusals } from "./testing/cases.js";
import { restBody, sendThroughClient } from "./testing/client.js";

const answer = () => ({
  name: "shop",
  ipAddress: { ip: "192.0.2.7", ports: [{ port: 80, protocol: "TCP" }], type: "Public" },
  instanceView: { state: "Running", events: [] },
});
function groupOf(registrations: Registration[]): Registration {
  return registrations.find(({ type }) => type === "azure-native:containerinstance:ContainerGroup")!;
}

async function registered(args: ContainerGroupArgs): Promise<Registration> {
  const registrations = await record({ answer });
  new ContainerGroup("shop", args);
  await settled();
  return groupOf(registrations);
}

describe("ContainerGroup on Azure", () => {
  it("is azure-native's group beneath the component, with defaults", async () => {
    const registrations = await record({ answer });
    const group = new ContainerGroup("shop", minimal);
    await settled();
    const { urn, inputs } = groupOf(registrations);
    expect(urn).toBe(
      "urn:pulumi:test::palisade::palisade:azure:ContainerGroup$azure-native:containerinstance:ContainerGroup::shop-group",
    );
    expect(inputs).toMatchObject({ containerGroupName: "shop", osType: "Linux", restartPolicy: "Always" });
    expect(await valueOf(group.endpoints)).toEqual([{ port: 80, protocol: "TCP", address: "192.0.2.7:80" }]);
    expect(await valueOf(group.state)).toBe("Running");
  });

  it("sends every argument through Microsoft's client, and the client drops none", async () => {
    const inputs = plain((await registered(everything)).inputs) as Record<string, unknown>;
    const { method, path, body } = await sendThroughClient(inputs);
    expect(method).toBe("PUT");
    expect(path).toMatch(/\/resourceGroups\/shops\/providers\/Microsoft\.ContainerInstance\/containerGroups\/shop$/);
    expect(body).toEqual(restBody(inputs));
    // Control: what the client does not know of is dropped, so that the comparison above can fail.
    const unknown = { ...inputs, standbyPoolProfile: { id: "/pool" } };
    expect((await sendThroughClient(unknown)).body).not.toEqual(restBody(unknown));
  });

  it("lets no argument of azure-native's go unmentioned", async () => {
    const { azureRules } = await import("./limits.js");
    const source = (await import("node:fs")).readFileSync(
      require.resolve("@pulumi/azure-native/containerinstance/containerGroup.js"),
      "utf8",
    );
    const theirs = [...source.matchAll(/resourceInputs\["(\w+)"\] = args/g)].map(([, field]) => field!);
    expect(theirs).toHaveLength(23);
    const ours = [...azureRules.group.allowed, ...Object.keys(azureRules.group.refused!)];
    expect(theirs.filter((field) => !ours.includes(field))).toEqual([]);
    // `everything` has each that is taken.
    expect(azureRules.group.allowed.filter((field) => !(field in everything))).toEqual([]);
  });

  it("keeps secrets secret, and only them", async () => {
    const { inputs } = await registered(everything);
    const text = JSON.stringify(inputs);
    for (const canary of ["token", "password", "storage", "workspace", "extension"]) {
      expect(text, canary).toMatch(new RegExp(`\\{"\\[secret\\]":(\\{"kubeConfig":)?"canary-${canary}"`));
    }
    expect(text).toContain('{"[secret]":{"note.txt":"Y2FuYXJ5LXZvbHVtZQ=="}}');
    expect(text.split("[secret]").length - 1).toBe(6);
  });

  it("has the engine replace what ACI cannot change, the old group first, and keep repeated secrets secret", async () => {
    const { options } = await registered(minimal);
    expect(options).toMatchObject({
      deleteBeforeReplace: true,
      replaceOnChanges: ["osType", "restartPolicy", "containers[*].resources", "subnetIds", "zones"],
      additionalSecretOutputs: expect.arrayContaining(["containers", "imageRegistryCredentials", "volumes"]),
    });
  });

  it("previews what is known beside what is not", async () => {
    const registrations = await record({ answer, preview: true });
    const image = pulumi.output(pulumi.unknown as unknown as string);
    new ContainerGroup("shop", { ...minimal, containers: [{ ...container, image }] });
    await settled();
    expect(groupOf(registrations).inputs["containers"]).toMatchObject([{ name: "web", image: "[unknown]" }]);
  });

  it("takes an image by its parts", async () => {
    const image = { repository: "registry.example/web", digest: `sha256:${"ab".repeat(32)}` };
    const { inputs } = await registered({ ...minimal, containers: [{ ...container, image }] });
    expect(inputs["containers"]).toMatchObject([{ image: `${image.repository}@${image.digest}` }]);
  });

  it.each(refusals)("refuses %s", async (message, change) => {
    await record({ answer });
    const create = () => new ContainerGroup("shop", { ...minimal, ...change });
    expect(create).toThrow(message);
    expect(create).not.toThrow("canary");
  });
});
