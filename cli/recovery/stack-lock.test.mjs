import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { clearStaleLocks, judge, programOf } from "./stack-lock.mjs";

const lock = (changes = {}) =>
  JSON.stringify({ pid: 4711, username: "operator", hostname: "here", timestamp: "2026-11-01T10:00:00Z", ...changes });

const machine = (program) => ({ hostname: "here", programOf: () => program });

describe("judge", () => {
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
  ])("%s", (_name, text, program, stale, reason) => {
    const verdict = judge(text, machine(program));
    expect(verdict.stale).toBe(stale);
    expect(verdict.reason).toContain(reason);
  });

  it("names process, user, machine and time", () => {
    expect(judge(lock(), machine("pulumi")).reason).toContain(
      "process 4711 of operator on here, since 2026-11-01T10:00:00Z",
    );
  });
});

describe("with files", () => {
  let folder;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "palisade-lock-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  describe("programOf", () => {
    const process_ = (pid, stat, executable) => {
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
    ])("%s", (_name, stat, executable, expected) => {
      process_(7, stat, executable);
      expect(programOf(7, folder)).toBe(expected);
    });

    it("no process", () => expect(programOf(8, folder)).toBeUndefined());
    it("this process", () => expect(programOf(process.pid)).toBe(path.basename(process.execPath)));
  });

  describe("clearStaleLocks", () => {
    const put = (stack, name, text) => {
      const target = path.join(folder, ".pulumi/locks/organization/palisade", stack);
      mkdirSync(target, { recursive: true });
      writeFileSync(path.join(target, name), text);
      return target;
    };
    const clear = (stack, program, lines = []) =>
      clearStaleLocks(folder, "palisade", stack, machine(program), (line) => lines.push(line));

    it("is content without locks", () => expect(clear("local", "pulumi")).toBe(true));

    it("removes a stale lock and its attributes, of this stack only", () => {
      const here = put("local", "a.json", lock());
      put("local", "a.json.attrs", "{}");
      const other = put("other", "b.json", lock());
      expect(clear("local", undefined)).toBe(true);
      expect(readdirSync(here)).toEqual([]);
      expect(readdirSync(other)).toEqual(["b.json"]);
    });

    it("keeps what is not stale, clears the rest, says both", () => {
      const here = put("local", "a.json", lock());
      put("local", "b.json", lock({ hostname: "there" }));
      const lines = [];
      expect(clear("local", undefined, lines)).toBe(false);
      expect(readdirSync(here)).toEqual(["b.json"]);
      expect(lines.join("\n")).toMatch(/cleared a stale lock.*\n.*locked by.*there.*\n.*remove .*b\.json/s);
    });
  });
});
