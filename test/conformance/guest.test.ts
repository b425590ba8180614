/** Parts of rows that need a kernel with more than this machine's may have: Go tests of the repository, run in the guest. */
import { execFileSync, spawnSync } from "node:child_process";
import path from "node:path";
import { expect, it } from "vitest";
import { observationsInLog } from "../acceptance/collect-go.js";
import { report } from "../acceptance/report.js";
import { guestIsMissing, guestRun } from "./lab.js";

const repository = path.resolve(__dirname, "../..");
const minutes = 60_000;

/** Runs one test of a package in the guest. */
function goTest(directory: string, name: string): { status: number | null; log: string } {
  const program = path.join(repository, "build/test", `${path.basename(directory)}.test`);
  const env = { ...process.env, CGO_ENABLED: "0" };
  execFileSync("go", ["test", "-c", "-o", program, `./${directory}`], { cwd: repository, env });
  const { status, stdout } = spawnSync(guestRun, [program, "--", "-test.v", `-test.run=^${name}$`], {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
    // Making the guest's kernel and modules for the first time takes minutes.
    timeout: 10 * minutes,
  });
  return { status, log: stdout };
}

it("N12: a WireGuard device on the host is told of", { timeout: 15 * minutes }, (context) => {
  const part = "in a guest with WireGuard";
  const missing = guestIsMissing();
  if (missing !== undefined) {
    const nothing = { observed: "", evidence: "", pass: true, seconds: 0 };
    report({ table: "conformance", id: "N12", part, ...nothing, missing: `${part}: ${missing}` });
    context.skip(missing);
  }
  const { status, log } = goTest("hosts/agent/internal/netd", "TestBypasses");
  // A test that is skipped observes nothing.
  const observed = observationsInLog(log).filter((observation) => observation.part === "TestBypasses/WireGuard");
  for (const observation of observed) report({ ...observation, part });
  expect(status, log).toBe(0);
  expect(observed, log).toHaveLength(1);
});
