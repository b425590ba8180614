import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sumGo, sumVitest } from "../../tools/test-summary.mjs";

const events = (...list) => list.map((event) => JSON.stringify(event)).join("\n");
const counts = ({ passed, failed, skipped }) => ({ passed, failed, skipped });

describe("sumGo", () => {
  it("counts tests without subtests, once", () => {
    const sum = sumGo(
      events(
        { Action: "pass", Package: "p", Test: "A/one" },
        { Action: "fail", Package: "p", Test: "A/two" },
        { Action: "output", Package: "p", Test: "A/two", Output: "wrong\n" },
        { Action: "fail", Package: "p", Test: "A" },
        { Action: "skip", Package: "p", Test: "B" },
        { Action: "fail", Package: "p" },
        { Action: "pass", Package: "q", Test: "A" },
        { Action: "pass", Package: "q" },
      ),
    );
    expect(counts(sum)).toEqual({ passed: 2, failed: 1, skipped: 1 });
    expect(sum.failures).toEqual([{ name: "p A/two", output: "wrong\n" }]);
  });

  it("counts a package that does not compile, with the compiler's words", () => {
    const sum = sumGo(
      events(
        { Action: "build-output", ImportPath: "p [p.test]", Output: "undefined: x\n" },
        { Action: "build-fail", ImportPath: "p [p.test]" },
        { Action: "fail", Package: "p" },
      ),
    );
    expect(counts(sum)).toEqual({ passed: 0, failed: 1, skipped: 0 });
    expect(sum.failures[0].output).toContain("undefined: x");
  });

  it("reads a run that was cut off", () => {
    expect(counts(sumGo('{"Action":"pass","Package":"p","Test":"A"}\n{"Action":"pa'))).toEqual({
      passed: 1,
      failed: 0,
      skipped: 0,
    });
  });
});

describe("sumVitest", () => {
  const report = (...testResults) => JSON.stringify({ testResults });
  it("counts tests, and files that fail as a whole", () => {
    const sum = sumVitest(
      report(
        {
          name: "a",
          status: "failed",
          assertionResults: [
            { status: "passed", fullName: "one" },
            { status: "failed", fullName: "two", failureMessages: ["wrong"] },
            { status: "skipped", fullName: "three" },
          ],
        },
        { name: "b", status: "failed", message: "cannot be loaded", assertionResults: [] },
      ),
    );
    expect(counts(sum)).toEqual({ passed: 1, failed: 2, skipped: 1 });
    expect(sum.failures.map(({ name }) => name)).toEqual(["two", "b"]);
  });
});

describe("the command", () => {
  let folder;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "palisade-summary-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const result = (layer, exitCode, json) => {
    writeFileSync(path.join(folder, `${layer}.result`), JSON.stringify({ exitCode, seconds: 1 }));
    if (json !== undefined) writeFileSync(path.join(folder, `${layer}.json`), json);
  };
  const run = (...extra) => {
    const { status, stdout } = spawnSync(process.execPath, ["tools/test-summary.mjs", folder, ...extra], {
      encoding: "utf8",
    });
    return { status, last: stdout.trimEnd().split("\n").at(-1), stdout };
  };
  const onePassed = events({ Action: "pass", Package: "p", Test: "A" });

  it.each([
    ["all passed", () => result("go", 0, onePassed), "1 passed, 0 failed", 0],
    ["a layer that ended badly without a report", () => result("e2e", 1), "0 passed, 1 failed", 1],
    ["a layer that ended badly although its tests passed", () => result("go", 2, onePassed), "1 passed, 1 failed", 1],
    ["a report that is no report", () => result("unit", 1, "{"), "0 passed, 1 failed", 1],
    ["nothing at all", () => undefined, "0 passed, 1 failed", 1],
  ])("%s", (_name, prepare, last, status) => {
    prepare();
    expect(run()).toMatchObject({ last, status });
  });

  it("adds a run that did not end", () => {
    result("go", 0, onePassed);
    expect(run("the run as a whole: too long")).toMatchObject({ last: "1 passed, 1 failed", status: 1 });
  });
});
