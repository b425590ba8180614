import { describe, expect, it } from "vitest";
import { digest } from "../internal/testing/answers.js";
import { record, settled } from "../internal/testing/recorder.js";
import { BareMetalHost, type BareMetalHostArgs } from "./bare-metal-host.js";

const minimal: BareMetalHostArgs = {
  image: digest,
  connection: { host: "192.0.2.7", password: "not-for-anybody" },
  disk: { serial: "S-1" },
  keysDirectory: "/keys",
};

async function previewed(args: BareMetalHostArgs) {
  const registrations = await record({ answer: () => ({}), preview: true });
  const host = new BareMetalHost("rack", args);
  await settled();
  return { registrations, host };
}

describe("BareMetalHost", () => {
  it("is a row of commands, and a comparison with its image, under permanent names", async () => {
    const { registrations } = await previewed(minimal);
    expect(registrations.slice(1).map(({ type, name }) => `${type} ${name}`)).toEqual(
      expect.arrayContaining([
        "command:remote:Command rack-inventory",
        "command:remote:CopyToRemote rack-agent",
        "command:remote:CopyToRemote rack-image",
        "command:remote:Command rack-write",
        "command:local:Command rack-keys",
        "command:remote:Command rack-firmware",
        "command:remote:Command rack-request",
        "command:local:Command rack-certificate",
        "command:remote:Command rack-enroll",
        "command:local:Command rack-start",
        "palisade:index:HostIntegrity rack-integrity",
      ]),
    );
    expect(registrations).toHaveLength(12);
  });

  it("installs anew under other names", async () => {
    const { registrations } = await previewed({ ...minimal, installation: 2 });
    expect(registrations.slice(1).every(({ name }) => name.endsWith("-2"))).toBe(true);
  });

  it("has the credentials in secrets only", async () => {
    const { registrations } = await previewed(minimal);
    const clear = JSON.stringify(registrations, (key, value: unknown) => (key === "[secret]" ? "" : value));
    expect(JSON.stringify(registrations)).toContain("not-for-anybody");
    expect(clear).not.toContain("not-for-anybody");
  });

  it("refuses wrong arguments, all at once, with their paths", async () => {
    await record({ answer: () => ({}), preview: true });
    const wrong = {
      image: "latest",
      connection: { host: "192.0.2.7", proxy: { host: "192.0.2.8" } },
      disk: { minimumGiB: 0, speed: 1 },
      endpoint: "192.0.2.7:8443",
      startSeconds: 5,
    } as unknown as BareMetalHostArgs;
    expect(() => new BareMetalHost("rack", wrong)).toThrow(
      /image = "latest"[\s\S]*connection\.proxy[\s\S]*disk\.speed[\s\S]*disk\.minimumGiB = 0[\s\S]*endpoint = [\s\S]*startSeconds = 5/,
    );
    expect(() => new BareMetalHost("rack", { ...minimal, disk: {} })).toThrow("disk = {}: says nothing");
  });
});
