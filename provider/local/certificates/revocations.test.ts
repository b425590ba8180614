import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { readAuthority } from "./authority.js";
import { readRevocations, recordRevocations, revocationsFile } from "./revocations.js";
import { makeAuthority } from "./testing.js";

describe("revocations", () => {
  it("are recorded beside the CA, once each, and stay", async () => {
    await withFolder(async (folder) => {
      const authority = await makeAuthority(folder);
      const file = join(folder, "ca.revoked.json");
      expect(revocationsFile(authority.certificateFile)).toBe(file);
      expect(await readRevocations(authority.certificateFile)).toEqual([]);
      expect(await recordRevocations(authority.certificateFile, ["b0"])).toEqual(["b0"]);
      const first = await readFile(file, "utf8");
      expect(await recordRevocations(authority.certificateFile, ["b0"])).toEqual(["b0"]);
      expect(await readFile(file, "utf8")).toBe(first);
      expect(await recordRevocations(authority.certificateFile, ["a1", "b0"])).toEqual(["a1", "b0"]);
      expect(await readRevocations(authority.certificateFile)).toEqual(["a1", "b0"]);
      expect((await readAuthority(authority)).revoked).toEqual(["a1", "b0"]);
      expect((await stat(file)).mode & 0o777).toBe(0o600);
    });
  });

  it("are all recorded when several processes record some at once", async () => {
    await withFolder(async (folder) => {
      const { certificateFile } = await makeAuthority(folder);
      const numbers = ["1", "2", "3", "4"];
      await Promise.all(numbers.map((number) => recordRevocations(certificateFile, [number])));
      expect(await readRevocations(certificateFile)).toEqual(numbers);
    });
  });

  it.each([
    ["no JSON", "{", /ca\.revoked\.json/],
    ["another form", "[]", /ca\.revoked\.json/],
    ["no serial number", '{ "revoked": { "A1": "" } }', /ca\.revoked\.json: revoked: "A1" is no serial number/],
  ])("fail where the file holds %s, instead of forgetting", async (_name, content, message) => {
    await withFolder(async (folder) => {
      const authority = await makeAuthority(folder);
      await writeFile(join(folder, "ca.revoked.json"), content);
      await expect(readAuthority(authority)).rejects.toThrow(message);
      await expect(recordRevocations(authority.certificateFile, ["a1"])).rejects.toThrow(message);
    });
  });
});
