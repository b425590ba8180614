import { copyFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { isOfFolder, trustedAuthorities } from "./replaced-authority.js";
import { makeAuthority } from "./testing.js";

/** A folder of keys with the CAs of these names; each connection names one of them, or a foreign one. */
async function withAuthorities(
  names: string[],
  work: (pem: (name: string) => Promise<string>, naming: (pem: string) => Parameters<typeof isOfFolder>[0]) => unknown,
): Promise<void> {
  await withFolder(async (folder) => {
    for (const name of names) await makeAuthority(folder, name);
    const { certificateFile } = await makeAuthority(folder, "foreign");
    await copyFile(certificateFile, join(folder, "unrelated.crt"));
    await work(
      async (name) => (await readFile(join(folder, `${name}.crt`), "utf8")).trim(),
      (certificateAuthority) => ({ certificateAuthority, clientCertificateFile: join(folder, "client.crt") }),
    );
  });
}

describe("trustedAuthorities", () => {
  it("is the CA of the connection", async () => {
    await withAuthorities(["ca"], async (pem, naming) => {
      expect(trustedAuthorities(naming(await pem("ca")))).toEqual([await pem("ca")]);
    });
  });

  it("has the next CA while hosts accept both", async () => {
    await withAuthorities(["ca", "ca.next"], async (pem, naming) => {
      expect(trustedAuthorities(naming(await pem("ca")))).toEqual([await pem("ca"), await pem("ca.next")]);
    });
  });

  it("has the CA in use for a state that names the one before, which is trusted no more", async () => {
    await withAuthorities(["ca", "ca.previous"], async (pem, naming) => {
      expect(trustedAuthorities(naming(await pem("ca.previous")))).toEqual([await pem("ca")]);
      expect(isOfFolder(naming(await pem("ca.previous")))).toBe(true);
    });
  });

  it("leaves a CA that is not of the folder as it is", async () => {
    await withAuthorities(["ca", "ca.next", "ca.previous"], async (pem, naming) => {
      expect(trustedAuthorities(naming(await pem("foreign")))).toEqual([await pem("foreign")]);
      expect(isOfFolder(naming(await pem("foreign")))).toBe(false);
    });
  });
});
