import { expect, it } from "vitest";
import { parsePackages } from "./suite-apt.js";

it("reads packages, whose source is themselves unless another is named", () => {
  const output = `Package: nginx
Version: 1.26.3-3+deb13u11
Size: 609740
Description: small
 Source: none of this

Package: libkrb5-3
Source: krb5 (1.21.3-5)
Version: 1.21.3-5+b1
Size: 326000

`;
  expect(parsePackages(output)).toEqual([
    { name: "nginx", version: "1.26.3-3+deb13u11", source: "nginx", size: 609740 },
    { name: "libkrb5-3", version: "1.21.3-5+b1", source: "krb5", size: 326000 },
  ]);
});
