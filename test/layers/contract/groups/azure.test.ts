/** Rows A1 and A2: all arguments of azure-native's group, and ACI's limits; the details are in components/azure. */
import { isDeepStrictEqual } from "node:util";
import { describe, expect, it } from "vitest";
import { ContainerGroup } from "../../../../components/azure/index.js";
import { azureRules } from "../../../../components/azure/limits.js";
import { everything, minimal, refusals } from "../../../../components/azure/testing/cases.js";
import { restBody, sendThroughClient } from "../../../../components/azure/testing/client.js";
import { ArgumentError } from "../../../../components/index.js";
import { plain } from "../../../../components/internal/testing/plain.js";
import { record, settled } from "../../../../components/internal/testing/recorder.js";
import { report } from "../../../support/acceptance/report.js";

describe("Azure Container Instances", () => {
  it("A1: is sent every argument, or refuses it", async () => {
    const started = Date.now();
    const registrations = await record({ answer: () => ({ instanceView: { state: "Running" } }) });
    new ContainerGroup("shop", everything);
    await settled();
    const { inputs } = registrations.find(({ type }) => type === "azure-native:containerinstance:ContainerGroup")!;
    const all = plain(inputs) as Record<string, unknown>;
    const { method, path, body } = await sendThroughClient(all);
    const kept = isDeepStrictEqual(body, restBody(all));
    const secrets = JSON.stringify(inputs).split('"[secret]"').length - 1;
    const unknown = { ...all, standbyPoolProfile: { id: "/pool" } };
    const dropped = (await sendThroughClient(unknown)).body["properties"] as object;
    report({
      table: "clouds",
      id: "A1",
      observed:
        `${azureRules.group.allowed.length} arguments of the group are sent by @azure/arm-containerinstance 9.1.0 as they were ` +
        `given, none dropped; ${Object.keys(azureRules.group.refused!).length - 1} and what else only the preview API has are ` +
        `refused in preview; ${secrets} secret values are marked secret`,
      control: "an argument that the client does not know is dropped, and the comparison shows it",
      pass: kept && secrets === 6 && !("standbyPoolProfile" in dropped),
      seconds: (Date.now() - started) / 1000,
      evidence: `${method} ${path}`,
    });
    expect(body).toEqual(restBody(all));
    expect(secrets).toBe(6);
    expect(dropped).not.toHaveProperty("standbyPoolProfile");
  });

  it("A2: refuses in preview what is beyond its limits", async () => {
    const started = Date.now();
    await record({ answer: () => ({}), preview: true });
    const messages = refusals.map(([, change]) => {
      try {
        new ContainerGroup("shop", { ...minimal, ...change });
      } catch (error) {
        if (error instanceof ArgumentError) return error.message;
        throw error;
      }
      return "taken";
    });
    const wrong = refusals
      .filter(([message], index) => !messages[index]!.includes(message))
      .map(([message]) => message);
    const own = messages.filter((message) => message.includes("https://learn.microsoft.com/"));
    report({
      table: "clouds",
      id: "A2",
      observed: `${refusals.length - wrong.length} of ${refusals.length} refused in preview, ${own.length} with ACI's page`,
      control: "the same group within the limits is registered (row A1)",
      pass: wrong.length === 0,
      seconds: (Date.now() - started) / 1000,
      evidence: messages.map((message) => message.split("\n")[1]?.trim()).join("\n"),
    });
    expect(wrong).toEqual([]);
    expect(own.length).toBeGreaterThanOrEqual(20);
  });
});
