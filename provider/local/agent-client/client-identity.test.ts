import { createPublicKey, X509Certificate } from "node:crypto";
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { KeyPairFiles } from "../../backends/index.js";
import { withFolder } from "../../system/testing.js";
import { readAuthority } from "../certificates/authority.js";
import { readClientCertificate, signClientCertificate } from "../certificates/client-certificate.js";
import { recordRevocations } from "../certificates/revocations.js";
import { makeAuthority, makeClient } from "../certificates/testing.js";
import { day } from "../certificates/x509.js";
import type { ClientRole } from "../../../shared/client-roles.js";
import { renewClientIdentity } from "./client-identity.js";

/** A client in a folder of its own, whose certificate ends so many days from now; the CA's files are beside it. */
async function withClient(
  { days, role = "operator" }: { days: number; role?: ClientRole },
  work: (client: {
    connection: { certificateAuthority: string; clientCertificateFile: string; clientKeyFile: string };
    authority: KeyPairFiles;
    folder: string;
    read: () => Promise<string>;
  }) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const authority = await makeAuthority(folder);
    const client = await makeClient(folder, authority);
    const key = createPublicKey(await readFile(client.keyFile, "utf8"));
    // Made as if some days had passed since.
    const made = new Date(Date.now() - (7 - days) * day);
    const pem = await signClientCertificate(await readAuthority(authority), key, { role, days: 7 }, made);
    await writeFile(client.certificateFile, pem);
    await work({
      connection: {
        certificateAuthority: await readFile(authority.certificateFile, "utf8"),
        clientCertificateFile: client.certificateFile,
        clientKeyFile: client.keyFile,
      },
      authority,
      folder,
      read: () => readFile(client.certificateFile, "utf8"),
    });
  });
}

describe("renewClientIdentity", () => {
  it.each([
    ["near its end", 2.5],
    ["that has expired", -1],
  ])("renews a certificate %s, for the same key and role", async (_name, days) => {
    for (const role of ["operator", "reader"] as const) {
      await withClient({ days, role }, async ({ connection, folder, read }) => {
        const [before, files] = [await read(), await readdir(folder)];
        expect(await renewClientIdentity(connection)).toBe("renewed");
        const after = readClientCertificate(await read());
        expect(after.role).toBe(role);
        expect(after.serialNumber).not.toBe(readClientCertificate(before).serialNumber);
        expect(Math.abs(after.notAfter.getTime() - Date.now() - 7 * day)).toBeLessThan(60_000);
        const [old, renewed] = [new X509Certificate(before), new X509Certificate(await read())];
        expect(renewed.publicKey.equals(old.publicKey)).toBe(true);
        expect((await stat(connection.clientCertificateFile)).mode & 0o777).toBe(0o600);
        expect(await readdir(folder)).toEqual(files);
        expect(await renewClientIdentity(connection)).toBe("valid");
      });
    }
  });

  it("leaves a certificate with more than a third of its life left", async () => {
    await withClient({ days: 3 }, async ({ connection, read }) => {
      const before = await read();
      expect(await renewClientIdentity(connection)).toBe("valid");
      expect(await read()).toBe(before);
    });
  });

  it("takes the CA's key from where it is", async () => {
    await withClient({ days: 1 }, async ({ connection, authority, folder }) => {
      await mkdir(join(folder, "elsewhere"));
      const keyFile = join(folder, "elsewhere/ca.key");
      await rename(authority.keyFile, keyFile);
      expect(await renewClientIdentity(connection)).toBe("due");
      expect(await renewClientIdentity(connection, async () => ({ ...authority, keyFile }))).toBe("renewed");
    });
  });

  it("without the CA's key, names the command that renews, once the certificate has expired", async () => {
    await withClient({ days: -1 }, async ({ connection, authority, read }) => {
      await rename(authority.keyFile, `${authority.keyFile}.away`);
      const before = await read();
      await expect(renewClientIdentity(connection)).rejects.toThrow(
        /^clientIdentity\.certificateFile: \S+client\.crt has expired on 20\S+; where the CA's key is, run `palisade keys client/,
      );
      expect(await read()).toBe(before);
    });
  });

  it("gives the key of a revoked certificate no other one", async () => {
    await withClient({ days: -1 }, async ({ connection, authority, read }) => {
      const before = await read();
      await recordRevocations(authority.certificateFile, [readClientCertificate(before).serialNumber]);
      await expect(renewClientIdentity(connection)).rejects.toThrow(
        /has expired on .*cannot be renewed: it is revoked/,
      );
      expect(await read()).toBe(before);
    });
  });

  it("leaves what another CA has issued", async () => {
    await withClient({ days: -1 }, async ({ connection, folder, read }) => {
      const other = await makeAuthority(folder, "other");
      const before = await read();
      const certificateAuthority = await readFile(other.certificateFile, "utf8");
      expect(await renewClientIdentity({ ...connection, certificateAuthority }, async () => other)).toBe("valid");
      expect(await read()).toBe(before);
    });
  });

  it("leaves what cannot be read to the connection, which names it", async () => {
    await withClient({ days: 1 }, async ({ connection }) => {
      await writeFile(connection.clientCertificateFile, "nonsense");
      expect(await renewClientIdentity(connection)).toBe("valid");
      expect(await renewClientIdentity({ ...connection, clientCertificateFile: "/nowhere" })).toBe("valid");
    });
  });
});
