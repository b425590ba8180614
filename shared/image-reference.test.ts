/** One grammar: every part that takes a reference or a server gives the same answer to one table. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { afterEach, describe, expect, it } from "vitest";
import { readConfiguration } from "../stacks/configuration.js";
import { imageReference as imageArgument } from "../cli/arguments.js";
import { ArgumentCheck, rules } from "../components/internal/arguments.js";
import type { Context, Properties } from "../provider/protocol/resource.js";
import { resources } from "../provider/resources/index.js";
import { imageId, Rules } from "../provider/resources/rules.js";
import {
  apiLocation,
  formatReference,
  namePatternProblem,
  nameProblem,
  parseImageReference,
  repositoryProblem,
  serverProblem,
} from "./image-reference.js";

interface Cases {
  accepted: string[];
  refused: string[];
}

const table = JSON.parse(readFileSync(join(__dirname, "../hosts/api/testdata/image-references.json"), "utf8")) as {
  references: {
    reference: string;
    server: string;
    repository: string;
    digest: string;
    api?: [string, string];
    refused?: string;
  }[];
  servers: Cases;
  repositories: Cases;
  patterns: Cases;
};
const wrong = table.references.filter(({ refused }) => refused !== undefined);
const right = table.references.filter(({ refused }) => refused === undefined);

const container = (image: string): Properties => ({
  name: "web",
  image,
  resources: { requests: { cpu: 1, memoryInGB: 1 } },
});
const host = {
  ...{ hostId: "h", endpoint: "https://127.0.0.1:1", certificateAuthority: "pem", publishedPorts: [] },
  ...{ clientCertificateFile: "/c", clientKeyFile: "/k" },
};

async function checked(type: string, inputs: Properties) {
  const resource = resources.find((one) => one.type === `palisade:index:${type}`)!;
  return resource.check({} as Context, { urn: "", inputs, oldInputs: undefined } as never);
}

const group = (image: string) => checked("GroupDeployment", { host, name: "web", containers: [container(image)] });

afterEach(() => pulumi.runtime.setAllConfig({}));

it("has a table of both", () => {
  expect(right.length).toBeGreaterThan(15);
  expect(wrong.length).toBeGreaterThan(30);
});

describe.each(right)("$reference is taken", ({ reference, server, repository, digest, api }) => {
  const parts = { server, repository, digest };

  it("by the parser, and is asked for where its registry answers", () => {
    expect(parseImageReference(reference)).toEqual(parts);
    const [host, path] = api ?? [server, repository];
    expect(apiLocation(server, repository)).toEqual({ host, repository: path });
  });

  it("by components", () => {
    expect(rules.imageReference(reference)).toBeUndefined();
    expect(rules.imageServer(server)).toBeUndefined();
    expect(rules.imageRepository(`${server}/${repository}`)).toBeUndefined();
  });

  it("by the provider, which keeps the digest and no tag", async () => {
    const { inputs, failures } = await group(reference);
    expect(failures).toEqual([]);
    expect((inputs["containers"] as Properties[])[0]!["image"]).toBe(formatReference(parts));
    expect(imageId("SealedImage", reference)).toEqual(parts);
  });

  it("by the command", () => {
    expect(imageArgument(reference)).toEqual(parts);
  });

  it("by the stacks", () => {
    pulumi.runtime.setAllConfig({ "palisade:image": reference, "palisade:registryServer": server });
    expect(readConfiguration()).toMatchObject({ image: reference, registryServer: server });
  });
});

describe.each(wrong)("$reference is refused: $refused", ({ reference }) => {
  it("by the parser", () => {
    expect(() => parseImageReference(reference)).toThrow("is not server/repository@sha256:");
  });

  it("by components", () => {
    const check = new ArgumentCheck("Group");
    check.field("image", reference, rules.imageReference);
    expect(() => check.refuse()).toThrow("must name the image by digest");
  });

  it("by the provider, with the field's path", async () => {
    expect((await group(reference)).failures).toEqual([
      { property: "containers[0].image", reason: expect.stringContaining("is not a reference with a digest") },
    ]);
    expect(() => imageId("SealedImage", reference)).toThrow("the id of a SealedImage is");
  });

  it("by the command", () => {
    expect(() => imageArgument(reference)).toThrow("expected server/repository@sha256:");
  });

  it("by the stacks", () => {
    pulumi.runtime.setAllConfig({ "palisade:image": reference });
    expect(() => readConfiguration()).toThrow("palisade:image");
  });
});

it("has one answer for servers, repositories and patterns of a policy", async () => {
  const answers = (cases: Cases, problem: (text: string) => string | undefined) => {
    expect(cases.accepted.filter((text) => problem(text) !== undefined)).toEqual([]);
    expect(cases.refused.filter((text) => problem(text) === undefined)).toEqual([]);
  };
  answers(table.servers, serverProblem);
  answers(table.servers, rules.imageServer);
  answers(table.repositories, repositoryProblem);
  answers(table.repositories, (text) => nameProblem(`r.example/${text}`));
  answers(table.repositories, (text) => rules.imageRepository(`r.example/${text}`));
  answers(table.patterns, namePatternProblem);
  const failureOf = (check: (rules: Rules) => void) => {
    const found = new Rules([]);
    check(found);
    return found.failures[0]?.reason;
  };
  answers(table.servers, (text) => failureOf((found) => found.server("server", text)));
  answers(table.repositories, (text) => failureOf((found) => found.repository("repository", text)));
  for (const [list, count] of [
    [table.patterns.accepted, 0],
    [table.patterns.refused, 1],
  ] as const) {
    for (const pattern of list) {
      const { failures } = await checked("ImagePolicy", { host, name: "a", repositories: [pattern] });
      expect(failures, pattern).toHaveLength(count);
    }
  }
});

it("repeats no value, which may be secret", () => {
  for (const { reference } of wrong) {
    expect(rules.imageReference(reference)?.replace("server/repository@sha256:…", "") ?? "").not.toContain(
      reference.slice(0, 6) || "\0",
    );
  }
});
