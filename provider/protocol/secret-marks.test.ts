import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backends } from "../backends/index.js";
import { unknown, type Derived, type Origins, type Properties } from "./resource.js";
import { imagePolicy } from "../resources/image-policy.js";
import { schemaText } from "../schema/schema.js";
import { SecretPaths, type Path } from "./marshal.js";
import { propagatedSecrets } from "./secret-marks.js";
import { TestClient } from "./testing.js";

const decoded = (properties: Properties, ...paths: Path[]) => {
  const secrets = new SecretPaths();
  for (const path of paths) secrets.add(path);
  return { properties, secrets };
};
const long = "a secret of many letters";

describe("marks of secrets go along with their values", () => {
  it.each<[string, Properties, Path[], Properties, Path[], Origins?]>([
    ["at its place", { a: "word", b: "x" }, [["a"]], { a: "word", b: "x" }, [["a"]]],
    ["changed at its place", { a: " word " }, [["a"]], { a: "word" }, [["a"]]],
    ["beside defaults", { a: "word" }, [["a"]], { a: "word", b: "x", c: [] }, [["a"]]],
    ["left out", { a: "word" }, [["a"]], { b: "x" }, []],
    ["a list that is sorted", { l: ["z", "secret-a"] }, [["l", 1]], { l: ["secret-a", "z"] }, [["l", 0]]],
    ["a short item of a sorted list", { l: ["z", "a"] }, [["l", 1]], { l: ["a", "z"] }, [["l", 0]]],
    ["a list without repetitions", { l: ["b", "b", "a"] }, [["l", 1]], { l: ["a", "b"] }, [["l", 1]]],
    ["a list of numbers", { l: [3, 1, 2] }, [["l", 0]], { l: [1, 2, 3] }, [["l", 2]]],
    ["a list as a whole", { l: ["z", "a"] }, [["l"]], { l: ["a", "z"] }, [["l"]]],
    [
      "the secret part of items that have changed, and not their names",
      { l: [{ n: "nginx", v: "Z" }, { n: "b" }] },
      [["l", 0, "v"]],
      {
        l: [
          { n: "b", p: 1 },
          { n: "nginx", v: "z", p: 2 },
        ],
      },
      [["l", 1, "v"]],
    ],
    [
      "nothing of items whose secret part is left out",
      { l: [{ n: "nginx", v: "Z" }] },
      [["l", 0, "v"]],
      { l: [{ n: "nginx", p: 1 }] },
      [],
    ],
    ["items that have changed", { l: ["Z", "A"] }, [["l", 1]], { l: ["a", "z"] }, [["l"]]],
    [
      "items that have changed, with their origins",
      { l: ["Z", "A"] },
      [["l", 1]],
      { l: ["a", "z"] },
      [["l", 0]],
      { l: [[1], [0]] },
    ],
    ["merged items", { l: ["a", "A"] }, [["l", 1]], { l: ["a"] }, [["l", 0]], { l: [[0, 1]] }],
    [
      "in items of a sorted list",
      {
        l: [
          { n: "z", v: "1" },
          { n: "a", v: "2" },
        ],
      },
      [["l", 0, "v"]],
      {
        l: [
          { n: "a", v: "2" },
          { n: "z", v: "1" },
        ],
      },
      [["l", 1, "v"]],
    ],
    ["in a map", { m: { z: "1", a: "2" } }, [["m", "z"]], { m: { a: "2", z: "1" } }, [["m", "z"]]],
    ["not known yet", { l: ["z", "a"] }, [["l", 1]], { l: unknown }, [["l", 1]]],
    ["copied elsewhere", { a: "word" }, [["a"]], { a: "word", b: "word", c: "words" }, [["a"], ["b"]]],
    ["contained elsewhere", { a: long }, [["a"]], { b: `x ${long} y`, c: "x" }, [["b"]]],
    ["given in the clear elsewhere", { a: "word", b: "word" }, [["a"]], { a: "word", b: "word", c: "word" }, [["a"]]],
  ])("%s", (_name, given, secrets, result, expected, origins) => {
    const marks = propagatedSecrets([decoded(given, ...secrets)], result, () => false, undefined, origins);
    expect(marks.paths()).toEqual(expected);
  });

  it("to copies of what the schema calls secret", () => {
    const marks = propagatedSecrets([decoded({ password: "word" })], { url: "word" }, (path) => path[0] === "password");
    expect(marks.paths()).toEqual([["url"]]);
  });

  it("from old outputs to those that are kept", () => {
    const known = [decoded({ a: "x" }), decoded({ a: "x", made: "word" }, ["made"])];
    expect(propagatedSecrets(known, { a: "x", made: "word" }, () => false).paths()).toEqual([["made"]]);
  });
});

describe("outputs that are made from all inputs", () => {
  const derived: Derived = { outputs: ["out"], exceptInputs: ["connection"] };
  it.each<[string, Properties, Path[], boolean]>([
    ["without a secret", { a: "x" }, [], false],
    ["with a secret input", { a: "x" }, [["a"]], true],
    ["with a secret deep in an input", { a: [{ b: "x" }] }, [["a", 0, "b"]], true],
    ["with a secret number", { a: 1 }, [["a"]], true],
    ["with a secret that is not known yet", { a: unknown }, [["a"]], true],
    ["with a secret that does not get into them", { connection: { p: "x" } }, [["connection"]], false],
    ["with what the schema calls secret", { token: "x" }, [], true],
  ])("%s", (_name, inputs, secrets, expected) => {
    const marks = propagatedSecrets(
      [decoded(inputs, ...secrets)],
      { out: "made" },
      (path) => path[0] === "token",
      derived,
    );
    expect(marks.has(["out"])).toBe(expected);
  });

  it("stay secret where they were", () => {
    const marks = propagatedSecrets(
      [decoded({}), decoded({ out: "old" }, ["out"])],
      { out: "new" },
      () => false,
      derived,
    );
    expect(marks.has(["out"])).toBe(true);
  });
});

describe("the check of an ImagePolicy", () => {
  let client: TestClient;
  beforeAll(async () => {
    client = await TestClient.start({ backends: () => ({}) as Backends, resources: [imagePolicy], schema: schemaText });
  });
  afterAll(() => client.stop());

  const host = {
    hostId: "host-0123456789ab",
    endpoint: "https://192.0.2.1:8443",
    certificateAuthority: "ca",
    clientCertificateFile: "/c",
    clientKeyFile: "/k",
    publishedPorts: [],
  };
  const key = (): string => {
    const pair = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
    return pair.publicKey.export({ type: "spki", format: "pem" }).toString();
  };

  it("sorts repositories and keys together with their marks", async () => {
    const [first, second] = [key(), key()].sort() as [string, string];
    const inputs = {
      host,
      name: "policy",
      repositories: ["r.example/z", "r.example/a", "r.example/z"],
      keys: [`${second}\n\n`, first],
    };
    const secrets: Path[] = [
      ["repositories", 1],
      ["keys", 0],
    ];
    const checked = await client.check(imagePolicy.type, inputs, { secrets });
    expect(checked.failures).toEqual([]);
    expect(checked.inputs.properties).toMatchObject({
      repositories: ["r.example/a", "r.example/z"],
      keys: [first, second],
    });
    expect(new Set(checked.inputs.secrets.paths())).toEqual(
      new Set([
        ["repositories", 0],
        ["keys", 1],
      ]),
    );
  });
});
