import { describe, expect, it } from "vitest";
import { parsePkcs11Uri } from "./pkcs11-uri.js";

describe("a PKCS#11 URI", () => {
  it.each([
    ["pkcs11:token=t;object=layer", { uri: "pkcs11:token=t;object=layer" }],
    ["pkcs11:id=%01?pin-source=file:/run/pin", { uri: "pkcs11:id=%01?pin-source=file:/run/pin" }],
    ["pkcs11:id=%01?pin-source=/run/pin", { uri: "pkcs11:id=%01?pin-source=/run/pin" }],
    [
      "pkcs11:object=layer?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:///run/a%20b",
      { uri: "pkcs11:object=layer?pin-source=file:///run/a%20b", modulePath: "/usr/lib/softhsm/libsofthsm2.so" },
    ],
  ])("%s is understood", (uri, parts) => {
    expect(parsePkcs11Uri(uri)).toEqual(parts);
  });

  it.each([
    ["/keys/layer.key", /does not begin with `pkcs11:`/],
    ["pkcs11:token=t", /names no key/],
    ["pkcs11:object=layer?pin-source=pin", /absolute path/],
    ["pkcs11:object=layer?pin-source=|/bin/sh", /absolute path/],
    ["pkcs11:object=layer?pin-source", /`name=value`/],
  ])("%s is refused", (uri, reason) => {
    expect(() => parsePkcs11Uri(uri)).toThrow(reason);
  });

  it.each([
    "pkcs11:object=layer?pin-value=canary",
    "pkcs11:object=layer?pin-source=file:/run/pin&PIN-VALUE=canary",
    "pkcs11:object=layer;pin-value=canary",
    "pkcs11:object=layer?a=b?pin-value=canary&c=d",
  ])("%s is refused, and the PIN not repeated", (uri) => {
    expect(() => parsePkcs11Uri(uri)).toThrow(/`pin-value` holds the PIN in clear.*`pin-source`/);
    expect(() => parsePkcs11Uri(uri)).not.toThrow(/canary/);
  });
});
