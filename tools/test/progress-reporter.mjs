// A reporter of vitest that says when a test of more than a few seconds has ended: its file is reported only when all of
// its tests have. Who watches the output sees that it goes on (run-layer.mjs).
const longMilliseconds = 5_000;

export default class ProgressReporter {
  onTestCaseResult(test) {
    const duration = test.diagnostic()?.duration ?? 0;
    if (duration < longMilliseconds) return;
    process.stdout.write(`  ${test.result().state} after ${(duration / 1000).toFixed(1)} s: ${test.fullName}\n`);
  }
}
