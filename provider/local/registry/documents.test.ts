/** The same tables as the agent's tests read. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fitting } from "../../../shared/decode.js";
import { candidates, descriptorSchema, readDocument } from "./documents.js";
import { challenges, mediaTypeOf, nextLink } from "./headers.js";

const table = <T>(name: string) =>
  JSON.parse(readFileSync(join(__dirname, "../../../hosts/api/testdata", name), "utf8")) as T;

const { documents, indexes } = table<{
  documents: { name: string; document: string; kind: "image" | "index" | "refused" }[];
  indexes: { name: string; architecture: string; manifests: unknown[]; candidates: string[] }[];
}>("image-documents.json");
const headers = table<{
  challenges: [string, [string, Record<string, string>][]][];
  links: [string, string][];
}>("registry-headers.json");

describe("a document", () => {
  it.each(documents)("$name: $kind", ({ document, kind }) => {
    const read = () => readDocument(Buffer.from(document), "registry: r/web");
    if (kind === "refused") expect(read).toThrow(/^registry: r\/web: /);
    else expect(read().kind).toBe(kind);
  });
});

describe("an index", () => {
  it.each(indexes)("$name", ({ manifests, architecture, candidates: wanted }) => {
    const found = candidates(fitting(descriptorSchema, manifests), architecture);
    expect(found.map(({ digest }) => digest)).toEqual(wanted);
  });
});

describe("a header", () => {
  it.each(headers.challenges)("WWW-Authenticate: %s", (header, wanted) => {
    expect(challenges(header).map(({ scheme, parameters }) => [scheme, parameters])).toEqual(wanted);
  });

  it.each(headers.links)("Link: %s", (header, wanted) => {
    expect(nextLink(header) ?? "").toBe(wanted);
  });

  it.each([
    ["application/json; charset=utf-8", "application/json"],
    ["Application/JSON ;x", "application/json"],
    [undefined, ""],
  ])("Content-Type: %s", (header, wanted) => {
    expect(mediaTypeOf(header)).toBe(wanted);
  });
});
