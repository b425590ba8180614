import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { assessLock, clearStaleLocks, programOf, readLocks, type Machine } from "./stack-lock.js";

const lock = (changes = {}) =>
  JSON.stringify({ pid: 4711, username: "operator", hostname: "here", timestamp: "2026-11-01T10:00:00Z", ...changes });

const machine = (program: string | undefined): Machine => ({
  hostname: "here",
  programOf: async () => program,
});

describe("assessLock", () => {
  it.each([
    ["a process that is gone", lock(), undefined, true, "process is gone"],
    ["a number that another program has now", lock(), "sshd", true, "is sshd now"],
    ["a program whose name only begins alike", lock(), "pulumi-resource-palisade", true, "is pulumi-resource-palisade"],
    ["a living Pulumi", lock(), "pulumi", false, "still running"],
    ["a process that cannot be looked at", lock(), "", false, "cannot be looked at"],
    ["another machine, the process unknown here", lock({ hostname: "there" }), undefined, false, "another machine"],
    ["another machine, the number taken here", lock({ hostname: "there" }), "sshd", false, "another machine"],
    ["no machine", lock({ hostname: "" }), undefined, false, "names no process"],
    ["no process", lock({ pid: undefined }), undefined, false, "names no process"],
    ["a process that cannot be", lock({ pid: -1 }), undefined, false, "names no process"],
    ["a process as text", lock({ pid: "4711" }), undefined, false, "names no process"],
    ["half a file", lock().slice(0, 20), undefined, false, "cannot be read"],
    ["an empty file", "", undefined, false, "cannot be read"],
    ["null", "null", undefined, false, "names no process"],
  ])("%s", async (_name, text, program, stale, reason) => {
    const assessed = await assessLock(text, machine(program));
    expect(assessed.stale).toBe(stale);
    expect(assessed.reason).toContain(reason);
  });

  it("names process, user, machine and time", async () => {
    expect((await assessLock(lock(), machine("pulumi"))).reason).toContain(
      "process 4711 of operator on here, since 2026-11-01T10:00:00Z",
    );
  });
});

describe("with files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "palisade-lock-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  describe("programOf", () => {
    const process_ = (pid: number, stat: string, executable: string | undefined) => {
      mkdirSync(path.join(folder, String(pid)));
      writeFileSync(path.join(folder, String(pid), "stat"), stat);
      if (executable) symlinkSync(executable, path.join(folder, String(pid), "exe"));
    };

    it.each([
      ["the executable's name", "7 (short) S 1", "/opt/bin/pulumi", "pulumi"],
      ["a replaced executable", "7 (pulumi) S 1", "/opt/bin/pulumi (deleted)", "pulumi"],
      ["the short name where the executable is hidden", "7 (pul) umi) S 1", undefined, "pul) umi"],
      ["a zombie is gone", "7 (pulumi) Z 1", "/opt/bin/pulumi", undefined],
      ["a dead one is gone", "7 (pulumi) X 1", "/opt/bin/pulumi", undefined],
    ])("%s", async (_name, stat, executable, expected) => {
      process_(7, stat, executable);
      expect(await programOf(7, folder)).toBe(expected);
    });

    it("no process", async () => expect(await programOf(8, folder)).toBeUndefined());
    it("a process that cannot be looked at", async () => {
      mkdirSync(path.join(folder, "9/stat"), { recursive: true });
      expect(await programOf(9, folder)).toBe("");
    });
    it("this process", async () => expect(await programOf(process.pid)).toBe(path.basename(process.execPath)));
  });

  describe("clearStaleLocks", () => {
    const put = (stack: string, name: string, text: string) => {
      const target = path.join(folder, ".pulumi/locks/organization/palisade", stack);
      mkdirSync(target, { recursive: true });
      writeFileSync(path.join(target, name), text);
      return target;
    };
    const place = (stack: string) => ({ backend: folder, project: "palisade", stack });
    const clear = (stack: string, program: string | undefined, lines: string[] = []) =>
      clearStaleLocks(place(stack), machine(program), (line) => lines.push(line));

    it("is content without locks", async () => expect(await clear("local", "pulumi")).toBe(true));

    it("removes a stale lock and its attributes, of this stack only", async () => {
      const here = put("local", "a.json", lock());
      put("local", "a.json.attrs", "{}");
      const other = put("other", "b.json", lock());
      expect(await clear("local", undefined)).toBe(true);
      expect(readdirSync(here)).toEqual([]);
      expect(readdirSync(other)).toEqual(["b.json"]);
    });

    it("keeps what is not stale, clears the rest, says both", async () => {
      const here = put("local", "a.json", lock());
      put("local", "b.json", lock({ hostname: "there" }));
      const lines: string[] = [];
      expect(await clear("local", undefined, lines)).toBe(false);
      expect(readdirSync(here)).toEqual(["b.json"]);
      expect(lines.join("\n")).toMatch(/cleared a stale lock.*\n.*locked by.*there.*\n.*remove .*b\.json/s);
    });

    it("names the Pulumi that holds a lock only while it runs", async () => {
      const file = path.join(put("local", "a.json", lock()), "a.json");
      expect(await readLocks(place("local"), machine("pulumi"))).toMatchObject([{ file, stale: false, holder: 4711 }]);
      expect((await readLocks(place("local"), machine(undefined)))[0]).not.toHaveProperty("holder");
    });

    it("takes every lock for its own where only this machine uses the backend", async () => {
      const here = put("local", "a.json", lock({ hostname: "its name before" }));
      const only: Machine = { ...machine(undefined), hostname: undefined };
      expect(await clearStaleLocks(place("local"), only, () => {})).toBe(true);
      expect(readdirSync(here)).toEqual([]);
    });
  });
});
