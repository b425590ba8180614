/**
 * Parts of rows that need more of a kernel than this machine's may have: Go tests of the repository, run in the guest.
 */
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { observationsInLog } from "../../support/acceptance/collect-go.js";
import { report } from "../../support/acceptance/report.js";
import { guestIsMissing, guestRun } from "./lab.js";
import { packageRoot } from "../../../shared/directories.js";

const repository = packageRoot();
const minutes = 60_000;
const run = promisify(execFile);

/**
 * Runs one test of a package in the guest and returns its log. It fails when the test does, with the log in the
 * message.
 */
async function goTest(directory: string, name: string): Promise<string> {
  const program = path.join(repository, "build/test", `${path.basename(directory)}.test`);
  const env = { ...process.env, CGO_ENABLED: "0" };
  await run("go", ["test", "-c", "-o", program, `./${directory}`], { cwd: repository, env });
  // Making the guest's kernel and modules for the first time takes minutes.
  const running = run(guestRun, [program, "--", "-test.v", `-test.run=^${name}$`], { timeout: 10 * minutes });
  running.child.stdin?.end();
  return await running.then(
    ({ stdout }) => stdout,
    (error: Error & { stdout: string; stderr: string }) => {
      throw new Error(`${name} in the guest: ${error.message}\n${error.stdout}${error.stderr}`);
    },
  );
}

it("N12: a WireGuard device on the host is reported", { timeout: 15 * minutes }, async (context) => {
  const row = { table: "conformance", id: "N12", part: "in a guest with WireGuard" } as const;
  const nothing = { observed: "", evidence: "", seconds: 0 };
  const missing = guestIsMissing();
  if (missing !== undefined) {
    report({ ...row, ...nothing, pass: true, missing: `${row.part}: ${missing}` });
    context.skip(missing);
  }
  // Until the test has said otherwise.
  report({ ...row, ...nothing, observed: `${row.part}: not reported`, pass: false });
  const log = await goTest("hosts/agent/internal/netd", "TestBypasses");
  // A test that is skipped observes nothing.
  const observed = observationsInLog(log).filter(({ part }) => part === "TestBypasses/WireGuard");
  for (const observation of observed) report({ ...observation, ...row });
  expect(observed, log).toHaveLength(1);
});
