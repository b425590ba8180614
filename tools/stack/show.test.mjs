import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ask, integrityLines, vulnerabilityLines } from "./show.mjs";

const integrity = {
  secureBoot: true,
  lockdown: "integrity",
  rootHash: "ab12",
  rootHashSignatureVerified: true,
  verityMount: "/",
  ipePolicy: "palisade 0.0.1",
  ipeEnforcing: false,
  selinux: "permissive",
  kernelVersion: "6.12",
  mode: "audit",
};

describe("integrityLines", () => {
  const text = (changes) =>
    integrityLines({ ...integrity, ...changes })
      .map((line) => line.join(": "))
      .join("\n");

  it("says what holds", () => {
    expect(text({})).toMatch(/Secure Boot: on\n.*verified by the kernel\nIPE policy: palisade 0\.0\.1, audit/s);
  });

  it.each([
    ["secureBoot", false, "Secure Boot: OFF"],
    ["rootHashSignatureVerified", false, "its signature: NOT VERIFIED"],
    ["ipePolicy", "", "IPE policy: NONE"],
    ["ipeEnforcing", true, "enforcing"],
    ["mode", "", "mode: NOT NAMED"],
  ])("does not gloss over %s = %s", (name, value, expected) => expect(text({ [name]: value })).toContain(expected));
});

describe("vulnerabilityLines", () => {
  it("says what patching did, and where that is attested", () => {
    expect(vulnerabilityLines({ fixableBefore: 7, fixableAfter: 0 }, "registry/web@sha256:12")).toEqual([
      ["vulnerabilities", "7 fixable → 0"],
      ["OpenVEX", "registry/web@sha256:12"],
    ]);
  });

  it("names no attestation where nothing was patched", () => {
    expect(vulnerabilityLines({ fixableBefore: 0, fixableAfter: 0 })).toEqual([["vulnerabilities", "0 fixable → 0"]]);
  });
});

describe("with a server", () => {
  let server;
  let url;
  let statuses;
  beforeEach(async () => {
    statuses = [];
    server = createServer((_request, response) => {
      response.statusCode = statuses.shift() ?? 200;
      response.end("hello");
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${server.address().port}/`;
  });
  afterEach(() => new Promise((resolve) => server.close(resolve)));

  it("asks again while the server is not there yet", async () => {
    statuses = [503, 502];
    expect(await ask(url, 5_000, 10)).toMatchObject({ status: 200, bytes: 5 });
  });

  it("gives up with the reason", async () => {
    statuses = Array.from({ length: 100 }, () => 503);
    await expect(ask(url, 50, 10)).rejects.toThrow(`${url} does not answer: HTTP 503`);
  });

  const show = (outputs) =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, ["tools/stack/show.mjs", "STACK=other "]);
      let text = "";
      child.stdout.on("data", (data) => (text += data));
      child.stderr.on("data", (data) => (text += data));
      child.once("close", (status) => resolve({ status, text }));
      child.stdin.end(JSON.stringify(outputs));
    });

  it("prints address, answer, integrity, next commands", async () => {
    const { status, text } = await show({ url, integrity, group: "web", groupState: "Running" });
    expect(status).toBe(0);
    for (const part of [url, "HTTP 200, 5 bytes", "lockdown", `curl ${url}`, "STACK=other make down"]) {
      expect(text).toContain(part);
    }
  });

  it("fails without an address", async () => {
    expect(await show({})).toMatchObject({ status: 1, text: expect.stringContaining("no output url") });
  });
});
