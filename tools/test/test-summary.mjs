// Adds up what the layers of a test run left: <layer>.result (see run-layer.mjs) and <layer>.json (vitest's JSON
// report, or the events of `go test -json`), or <layer>.checks of `make check`. Prints what failed, a line per layer
// with its times beside its budget (test/budgets.json), and last `N passed, N failed`. Exits with 1 when anything
// failed or when nothing ran. A skipped test that is not on the list test/skipped.json is a failure. So is a layer that
// used twice the CPU seconds of its budget: CPU seconds hardly depend on what else the machine does.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { readBudgets } from "./run-layer.mjs";

/**
 * @typedef {{ name: string, output: string }} Named
 * @typedef {{ passed: number, failed: number, skipped: Named[], failures: Named[] }} Sum
 * @typedef {{ layer: string, test: string, says?: string, reason: string }} AllowedSkip `test` and `says` are regular
 * expressions, for the test's whole name and for what it prints when it is skipped (Go only)
 */

/** @returns {Sum} */
function empty() {
  return { passed: 0, failed: 0, skipped: [], failures: [] };
}

/**
 * Events of `go test -json`. Only tests without subtests count, so that nothing counts twice; a package that fails
 * without a failing test (it does not compile, it panics) counts as one failure.
 * @param {string} text
 * @returns {Sum}
 */
export function sumGo(text) {
  const sum = empty();
  const results = new Map();
  const output = new Map();
  const packagesWithFailures = new Set();
  const add = (key, line) => output.set(key, (output.get(key) ?? "") + line);
  for (const line of text.split("\n")) {
    if (!line.startsWith("{")) continue;
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      // A killed run ends in half a line.
      continue;
    }
    const owner = event.Package ?? event.ImportPath?.split(" ")[0] ?? "";
    const key = event.Test ? `${owner} ${event.Test}` : owner;
    if (event.Action === "output" || event.Action === "build-output") add(key, event.Output);
    else if (["pass", "fail", "skip"].includes(event.Action)) results.set(key, event);
  }
  const parents = new Set();
  for (const { Package: owner, Test: test } of results.values()) {
    if (test?.includes("/")) parents.add(`${owner} ${test.slice(0, test.lastIndexOf("/"))}`);
  }
  for (const [key, event] of results) {
    if (!event.Test || parents.has(key)) continue;
    if (event.Action === "pass") sum.passed += 1;
    else if (event.Action === "skip") sum.skipped.push({ name: key, output: output.get(key) ?? "" });
    else {
      sum.failed += 1;
      packagesWithFailures.add(event.Package);
      sum.failures.push({ name: key, output: output.get(key) ?? "" });
    }
  }
  for (const [key, event] of results) {
    if (event.Test || event.Action !== "fail" || packagesWithFailures.has(event.Package)) continue;
    sum.failed += 1;
    sum.failures.push({ name: key, output: output.get(key) ?? "" });
  }
  return sum;
}

/**
 * vitest's JSON report. A file that fails as a whole (it cannot be loaded, a hook throws) counts as one failure.
 * @param {string} text
 * @returns {Sum}
 */
export function sumVitest(text) {
  const sum = empty();
  for (const file of JSON.parse(text).testResults) {
    let failedHere = 0;
    for (const test of file.assertionResults) {
      if (test.status === "passed") sum.passed += 1;
      else if (test.status === "failed") {
        failedHere += 1;
        sum.failures.push({ name: test.fullName, output: (test.failureMessages ?? []).join("\n") });
      } else sum.skipped.push({ name: test.fullName, output: "" });
    }
    if (file.status === "failed" && failedHere === 0) {
      failedHere = 1;
      sum.failures.push({ name: file.name, output: file.message ?? "" });
    }
    sum.failed += failedHere;
  }
  return sum;
}

/**
 * What `make check` writes: a line for each check, passed or failed, and its title.
 * @param {string} text
 * @returns {Sum}
 */
export function sumChecks(text) {
  const sum = empty();
  for (const [, result, name] of text.matchAll(/^(passed|failed) (.*)$/gm)) {
    sum[result] += 1;
    if (result === "failed") sum.failures.push({ name, output: "see its output above" });
  }
  return sum;
}

/** Layers whose report is the events of `go test -json`. */
const isGo = (layer) => layer === "go" || layer.startsWith("go-");

/**
 * The failures that skipped tests are: those that no entry of the list allows.
 * @param {Named[]} skipped
 * @param {AllowedSkip[]} allowed
 * @returns {Named[]}
 */
export function unexpectedSkips(layer, skipped, allowed) {
  const entries = allowed.filter((entry) => entry.layer === layer);
  return skipped
    .filter(
      ({ name, output }) =>
        !entries.some(
          ({ test, says }) =>
            new RegExp(`^(?:${test})$`).test(name) && (says === undefined || new RegExp(says).test(output)),
        ),
    )
    .map(({ name, output }) => ({
      name,
      output: `${output}skipped, and test/skipped.json does not allow it: let it run, or add it there with the reason`,
    }));
}

/**
 * Why a layer's use of CPU time is a failure, or undefined.
 * @param {import("./run-layer.mjs").Budget | undefined} budget
 */
export function budgetFailure(budget, cpuSeconds) {
  if (cpuSeconds === undefined) return undefined;
  if (budget === undefined) return "it has no budget; add one to test/budgets.json";
  if (cpuSeconds < 2 * budget.cpuSeconds) return undefined;
  return `it used ${cpuSeconds} CPU seconds, twice its budget of ${budget.cpuSeconds} or more`;
}

/**
 * One layer from its files. A layer that ended badly without a failed test still counts as one failure.
 * @returns {Sum & { seconds: number, cpuSeconds?: number, cpuIsLowerBound?: boolean }}
 */
export function sumLayer(folder, layer, { budgets = {}, allowedSkips = [] } = {}) {
  const result = JSON.parse(readFileSync(path.join(folder, `${layer}.result`), "utf8"));
  const checks = path.join(folder, `${layer}.checks`);
  const report = existsSync(checks) ? checks : path.join(folder, `${layer}.json`);
  const read = report === checks ? sumChecks : isGo(layer) ? sumGo : sumVitest;
  let sum = empty();
  if (existsSync(report)) {
    try {
      sum = read(readFileSync(report, "utf8"));
    } catch (error) {
      sum.failed += 1;
      sum.failures.push({ name: layer, output: `its report cannot be read: ${error.message}` });
    }
  }
  const fail = (...failures) => {
    sum.failed += failures.length;
    sum.failures.push(...failures);
  };
  if (result.ended !== undefined) fail({ name: layer, output: `was ended: ${result.ended}` });
  else if (result.exitCode !== 0 && sum.failed === 0) {
    fail({ name: layer, output: `ended with exit code ${result.exitCode}; see its output above` });
  }
  fail(...unexpectedSkips(layer, sum.skipped, allowedSkips));
  const overdrawn = budgetFailure(budgets[layer], result.cpuSeconds);
  if (overdrawn !== undefined) fail({ name: layer, output: overdrawn });
  return {
    ...sum,
    seconds: result.seconds,
    cpuSeconds: result.cpuSeconds,
    cpuIsLowerBound: result.cpuIsLowerBound,
    guestRestarts: result.guestRestarts ?? 0,
  };
}

/** A layer's line: what it counted, and its times beside its budget. */
export function layerLine(layer, sum, budget) {
  const skipped = sum.skipped.length > 0 ? `, ${sum.skipped.length} skipped` : "";
  const minutes = budget === undefined ? "" : ` of ${Math.round(budget.minutes * 60)}`;
  const restarts = sum.guestRestarts > 0 ? `, ${sum.guestRestarts} guests started again` : "";
  const least = sum.cpuIsLowerBound ? "at least " : "";
  const cpu =
    sum.cpuSeconds === undefined
      ? ""
      : `; CPU ${least}${Math.round(sum.cpuSeconds)} s${budget === undefined ? "" : ` of ${budget.cpuSeconds}`}`;
  return `${layer.padEnd(14)} ${sum.passed} passed, ${sum.failed} failed${skipped}${restarts}  (${Math.round(sum.seconds)} s${minutes}${cpu})`;
}

/** Guests that may hang in a run, and are started again by the provider: emulation is slow now and then. */
const maximumGuestRestarts = 2;

function main([folder, ended]) {
  const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
  const budgets = readBudgets();
  const allowedSkips = JSON.parse(readFileSync(path.join(repository, "test/skipped.json"), "utf8"));
  const layers = readdirSync(folder)
    .filter((name) => name.endsWith(".result"))
    .sort((a, b) => statSync(path.join(folder, a)).mtimeMs - statSync(path.join(folder, b)).mtimeMs)
    .map((name) => name.slice(0, -".result".length));
  const total = { passed: 0, failed: 0, seconds: 0, cpuSeconds: 0, guestRestarts: 0 };
  const lines = [];
  for (const layer of layers) {
    const sum = sumLayer(folder, layer, { budgets, allowedSkips });
    total.passed += sum.passed;
    total.failed += sum.failed;
    total.seconds += sum.seconds;
    total.cpuSeconds += sum.cpuSeconds ?? 0;
    total.guestRestarts += sum.guestRestarts;
    for (const { name, output } of sum.failures) console.log(`FAILED ${layer}: ${name}\n${output}`);
    lines.push(layerLine(layer, sum, budgets[layer]));
  }
  for (const line of lines) console.log(line);
  if (total.guestRestarts > maximumGuestRestarts) {
    total.failed += 1;
    console.log(
      `FAILED ${total.guestRestarts} guests hung and were started again; more than ${maximumGuestRestarts} in a run is a fault`,
    );
  }
  if (ended !== undefined) {
    total.failed += 1;
    console.log(`FAILED ${ended}`);
  } else if (layers.length === 0) {
    total.failed += 1;
    console.log("FAILED: nothing ran");
  }
  console.log(`all layers      ${Math.round(total.seconds)} s, CPU ${Math.round(total.cpuSeconds)} s`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exitCode = total.failed === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) main(process.argv.slice(2));
