import { describe, expect, it } from "vitest";
import { observations, observationsInLog } from "./collect-go.js";

describe("observations", () => {
  it("takes them from the log lines of tests, and nothing else", () => {
    const event = (output: string) => JSON.stringify({ Action: "output", Package: "p", Test: "T", Output: output });
    const observation = { table: "conformance", id: "N3", observed: "no difference", pass: true, seconds: 1 };
    const events = [
      event("=== RUN   T\n"),
      event(`    row.go:50: acceptance: ${JSON.stringify(observation)}\n`),
      "not an event, acceptance: {}",
      JSON.stringify({ Action: "pass", Package: "p", Test: "T" }),
    ];
    expect(observations(events.join("\n"))).toEqual([observation]);
  });

  it("does not pass over half an observation", () => {
    expect(() => observations(JSON.stringify({ Output: 'acceptance: {"id":' }))).toThrow();
  });
});

describe("observationsInLog", () => {
  it("takes them from a log that is no list of events", () => {
    const observation = { table: "conformance", id: "N3", observed: "no difference", pass: true, seconds: 1 };
    const log = ["=== RUN   T", `    row.go:50: acceptance: ${JSON.stringify(observation)}`, "--- PASS: T (0.00s)", ""];
    expect(observationsInLog(log.join("\n"))).toEqual([observation]);
  });
});
