import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { budgetFailure, layerLine, sumGo, sumVitest, unexpectedSkips } from "./test-summary.mjs";

const events = (...list) => list.map((event) => JSON.stringify(event)).join("\n");
const counts = ({ passed, failed, skipped }) => ({ passed, failed, skipped: skipped.length });

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

describe("unexpectedSkips", () => {
  const list = [
    { layer: "go", test: "p A(/.*)?", says: "needs root", reason: "not root here" },
    { layer: "unit", test: "is accepted by .*", reason: "cosign is not here" },
  ];
  it.each([
    ["on the list", "go", "p A", "skip: needs root\n", true],
    ["a subtest of it", "go", "p A/one", "skip: needs root\n", true],
    ["for another reason", "go", "p A", "skip: no time\n", false],
    ["a longer name", "go", "p AB", "skip: needs root\n", false],
    ["of another layer", "unit", "p A", "needs root", false],
    ["without words, on the list", "unit", "is accepted by cosign", "", true],
    ["nowhere", "unit", "is new", "", false],
  ])("%s", (_name, layer, name, output, allowed) => {
    const failures = unexpectedSkips(layer, [{ name, output }], list);
    expect(failures.map((failure) => failure.name)).toEqual(allowed ? [] : [name]);
  });
});

describe("budgets", () => {
  const budget = { minutes: 2, cpuSeconds: 100, quietMinutes: 5 };
  it.each([
    [199.9, undefined],
    [200, "it used 200 CPU seconds, twice its budget of 100 or more"],
    [undefined, undefined],
  ])("%s CPU seconds of 100", (seconds, failure) => expect(budgetFailure(budget, seconds)).toBe(failure));

  it("a layer without one fails", () => expect(budgetFailure(undefined, 1)).toContain("it has no budget"));

  it("stand beside what was used", () => {
    const sum = { passed: 3, failed: 0, skipped: [{ name: "a", output: "" }], seconds: 61.4, cpuSeconds: 90.2 };
    expect(layerLine("engine", sum, budget)).toBe(
      "engine         3 passed, 0 failed, 1 skipped  (61 s of 120; CPU 90 s of 100)",
    );
    expect(layerLine("engine", { ...sum, guestRestarts: 1 }, budget)).toContain("1 skipped, 1 guests started again  (");
    expect(layerLine("engine", { ...sum, cpuIsLowerBound: true }, budget)).toContain("CPU at least 90 s of 100");
  });
});

describe("the command", () => {
  let folder;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "palisade-summary-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const result = (layer, exitCode, json, more = {}) => {
    writeFileSync(path.join(folder, `${layer}.result`), JSON.stringify({ exitCode, seconds: 1, ...more }));
    if (json !== undefined) writeFileSync(path.join(folder, `${layer}.json`), json);
  };
  const run = (...extra) => {
    const { status, stdout } = spawnSync(process.execPath, ["tools/test/test-summary.mjs", folder, ...extra], {
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
    [
      "a layer that was ended, beside its failed tests",
      () => result("unit", 143, events(), { ended: "it made no progress" }),
      "0 passed, 2 failed",
      1,
    ],
    [
      "a test that is skipped without a reason on the list",
      () => result("go", 0, events({ Action: "skip", Package: "p", Test: "NoSuchTest" })),
      "0 passed, 1 failed",
      1,
    ],
    ["a layer of much CPU time", () => result("go", 0, onePassed, { cpuSeconds: 1e6 }), "1 passed, 1 failed", 1],
    ["a layer without a budget", () => result("new", 0, undefined, { cpuSeconds: 1 }), "0 passed, 1 failed", 1],
    [
      "checks of which one failed",
      () => {
        result("check", 2);
        writeFileSync(path.join(folder, "check.checks"), "passed gofmt\nfailed TypeScript types\n");
      },
      "1 passed, 1 failed",
      1,
    ],
    ["two guests started again", () => result("go", 0, onePassed, { guestRestarts: 2 }), "1 passed, 0 failed", 0],
    [
      "three guests started again, in two layers",
      () => {
        result("go", 0, onePassed, { guestRestarts: 2 });
        result("unit", 0, undefined, { guestRestarts: 1 });
      },
      "1 passed, 1 failed",
      1,
    ],
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
