// Adds up what the layers of a test run left: <layer>.result (exit code and seconds) and <layer>.json (vitest's JSON
// report, or the events of `go test -json`). Prints what failed, a line per layer, and last `N passed, N failed`.
// Exits with 1 when anything failed or when nothing ran.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

/**
 * @typedef {{ passed: number, failed: number, skipped: number, failures: { name: string, output: string }[] }} Sum
 */

/** @returns {Sum} */
function empty() {
  return { passed: 0, failed: 0, skipped: 0, failures: [] };
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
    else if (event.Action === "skip") sum.skipped += 1;
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
      } else sum.skipped += 1;
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
 * One layer from its files. A layer that ended badly without a failed test still counts as one failure.
 * @returns {Sum & { seconds: number }}
 */
export function sumLayer(folder, layer) {
  const { exitCode, seconds } = JSON.parse(readFileSync(path.join(folder, `${layer}.result`), "utf8"));
  const report = path.join(folder, `${layer}.json`);
  let sum = empty();
  if (existsSync(report)) {
    try {
      sum = (layer === "go" ? sumGo : sumVitest)(readFileSync(report, "utf8"));
    } catch (error) {
      sum.failed += 1;
      sum.failures.push({ name: layer, output: `its report cannot be read: ${error.message}` });
    }
  }
  if (exitCode !== 0 && sum.failed === 0) {
    sum.failed = 1;
    sum.failures.push({ name: layer, output: `ended with exit code ${exitCode}; see its output above` });
  }
  return { ...sum, seconds };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, ended] = process.argv.slice(2);
  const layers = readdirSync(folder)
    .filter((name) => name.endsWith(".result"))
    .sort((a, b) => statSync(path.join(folder, a)).mtimeMs - statSync(path.join(folder, b)).mtimeMs)
    .map((name) => name.slice(0, -".result".length));
  let passed = 0;
  let failed = 0;
  for (const layer of layers) {
    const sum = sumLayer(folder, layer);
    passed += sum.passed;
    failed += sum.failed;
    for (const { name, output } of sum.failures) console.log(`FAILED ${layer}: ${name}\n${output}`);
    const skipped = sum.skipped > 0 ? `, ${sum.skipped} skipped` : "";
    console.log(`${layer.padEnd(14)} ${sum.passed} passed, ${sum.failed} failed${skipped}  (${sum.seconds} s)`);
  }
  if (ended !== undefined) {
    failed += 1;
    console.log(`FAILED ${ended}`);
  } else if (layers.length === 0) {
    failed += 1;
    console.log("FAILED: nothing ran");
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
