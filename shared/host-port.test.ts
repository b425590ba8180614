import { describe, expect, it } from "vitest";
import { hostPort, httpsUrl, urlProblem, withoutBrackets } from "./host-port.js";

describe("hostPort", () => {
  it.each<[string, string]>([
    ["host.example", "host.example:80"],
    ["192.0.2.1", "192.0.2.1:80"],
    ["2001:db8::10", "[2001:db8::10]:80"],
    ["[2001:db8::10]", "[2001:db8::10]:80"],
    ["::1", "[::1]:80"],
    ["::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"],
    ["fe80::1%eth0", "[fe80::1%eth0]:80"],
    ["[not an address]", "[not an address]:80"],
  ])("%s", (host, expected) => {
    expect(hostPort(host, 80)).toBe(expected);
  });

  it("makes URLs that can be read", () => {
    expect(new URL(httpsUrl("2001:db8::10", 8443)).host).toBe("[2001:db8::10]:8443");
  });

  it("is undone for what is dialed", () => {
    expect(withoutBrackets("[2001:db8::10]")).toBe("2001:db8::10");
    expect(withoutBrackets("host.example")).toBe("host.example");
  });
});

describe("urlProblem", () => {
  it.each(["https://192.0.2.1:8443", "https://host.example:1", "https://[2001:db8::10]:65535"])("takes %s", (text) => {
    expect(urlProblem(text)).toBeUndefined();
  });
  it.each([
    "https://2001:db8::10:8443",
    "https://[2001:db8::10]",
    "https://[2001:db8::10",
    "https://[host]:8443",
    "https://[fe80::1%25eth0]:8443",
    "https://[fe80::1%eth0]:8443",
    "https://host:0",
    "https://host:65536",
    "https://host:8443/",
    "https://host:8443?x",
    "https://user@host:8443",
    "http://host:8443",
    "host:8443",
    "https://:8443",
  ])("refuses %s", (text) => {
    expect(urlProblem(text)).toMatch(/must be https/);
  });
});
