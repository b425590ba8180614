import { X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { run } from "../../system/command.js";
import { withFolder } from "../../system/testing.js";
import { readAuthority } from "./authority.js";
import { hostIdOf, hostName, isRenewalDue, signHostCertificate } from "./host-certificate.js";
import { makeAuthority, makeRequest } from "./testing.js";
import { day } from "./x509.js";

const hostId = "host-0123456789abcdef";

describe("signHostCertificate", () => {
  it("gives a certificate for the request's key in the host's name, for 30 days", async () => {
    await withFolder(async (folder) => {
      const authority = await readAuthority(await makeAuthority(folder));
      const pem = await signHostCertificate(authority, hostId, (await makeRequest(hostId)).pem);
      const certificate = new X509Certificate(pem);
      expect(certificate.subject).toBe(`CN=${hostId}`);
      expect(certificate.subjectAltName).toBe(`DNS:${hostName(hostId)}`);
      expect(certificate.ca).toBe(false);
      expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
      const days = (Date.parse(certificate.validTo) - Date.now()) / day;
      expect(days).toBeGreaterThan(29.9);
      expect(days).toBeLessThanOrEqual(30);
      await writeFile(join(folder, "leaf.crt"), pem);
      // Another implementation checks it, which is strict about the standard.
      await run("openssl", ["verify", "-x509_strict", "-CAfile", join(folder, "ca.crt"), join(folder, "leaf.crt")]);
    });
  });

  it("keeps the CA's name byte by byte, as verifiers compare it", async () => {
    await withFolder(async (folder) => {
      // OpenSSL encodes names as UTF8String; a name encoded anew would become a PrintableString.
      const authority = await readAuthority(await makeAuthority(folder));
      const pem = await signHostCertificate(authority, hostId, (await makeRequest(hostId)).pem);
      const nameOf = async (file: string, content: string, which: string) => {
        await writeFile(join(folder, file), content);
        const text = await run("openssl", ["x509", "-in", join(folder, file), "-noout", `-${which}_hash`]);
        const der = await run("openssl", ["asn1parse", "-in", join(folder, file)]);
        return { hash: text, encoding: /:commonName\n.*?prim: (\S+)/.exec(der)?.[1] };
      };
      const leaf = await nameOf("leaf.crt", pem, "issuer");
      const ca = await nameOf("again.crt", authority.certificate, "subject");
      expect(leaf).toEqual(ca);
      expect(leaf.encoding).toBe("UTF8STRING");
    });
  });

  it("refuses a request in another's name, of another key, or for more names", async () => {
    await withFolder(async (folder) => {
      const authority = await readAuthority(await makeAuthority(folder));
      const other = await makeRequest("host-ffffffffffffffff");
      await expect(signHostCertificate(authority, hostId, other.pem)).rejects.toThrow(/common name is "host-f+"/);
      const more = await makeRequest(hostId, [hostName(hostId), "example.org"]);
      await expect(signHostCertificate(authority, hostId, more.pem)).rejects.toThrow(/dns:example.org/);
      const forged = (await makeRequest(hostId)).tampered();
      await expect(signHostCertificate(authority, hostId, forged)).rejects.toThrow(
        /not signed by the key|cannot be read/,
      );
      await expect(signHostCertificate(authority, hostId, "nonsense")).rejects.toThrow(/cannot be read/);
      await expect(signHostCertificate(authority, "a.b", other.pem)).rejects.toThrow(/no host id/);
    });
  });
});

describe("readAuthority", () => {
  it("names the file that is missing, and refuses a key of another certificate", async () => {
    await withFolder(async (folder) => {
      const files = await makeAuthority(folder);
      await expect(readAuthority({ ...files, keyFile: join(folder, "no.key") })).rejects.toThrow(
        /certificateAuthority\.keyFile: .*no\.key cannot be read.*palisade keys init/,
      );
      const other = await makeAuthority(folder, "other");
      await expect(readAuthority({ ...files, keyFile: other.keyFile })).rejects.toThrow(/is not the key of/);
    });
  });
});

describe("host names", () => {
  it("lead back to the id, and nothing else does", () => {
    expect(hostIdOf(hostName(hostId))).toBe(hostId);
    for (const name of ["a.b.host.palisade.internal", ".host.palisade.internal", "host.palisade.internal.evil", ""]) {
      expect(hostIdOf(name)).toBeUndefined();
    }
  });
});

describe("isRenewalDue", () => {
  it("is due with less than a third left", () => {
    const now = new Date("2026-11-01T00:00:00Z");
    const inDays = (days: number) => new Date(now.getTime() + days * day);
    expect(isRenewalDue(inDays(10.1), now)).toBe(false);
    expect(isRenewalDue(inDays(9.9), now)).toBe(true);
  });
});
