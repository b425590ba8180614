// A reporter of vitest that says when a test of more than a few seconds has ended: its file is reported only when all
// of its tests have. Its output shows that the tests make progress (run-layer.mjs).
const longMilliseconds = 5_000;

export default class ProgressReporter {
  onTestCaseResult(test) {
    const duration = test.diagnostic()?.duration ?? 0;
    if (duration < longMilliseconds) return;
    process.stdout.write(`  ${test.result().state} after ${(duration / 1000).toFixed(1)} s: ${test.fullName}\n`);
  }
}
