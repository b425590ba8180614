import { describe, expect, it } from "vitest";
import type { Backends } from "../backends/index.js";
import { debianImage } from "./debian-image.js";
import { differences } from "../schema/difference.js";
import { hostedId, hostId, imageId } from "./rules.js";
import { packageSchema, validate, validateFunction } from "../schema/schema.js";

const digest = `sha256:${"a".repeat(64)}`;

describe("ids of what is on a host", () => {
  it("have two parts", () => {
    expect(hostedId("a GroupDeployment", "group", "host-0123456789ab/web")).toEqual({
      hostId: "host-0123456789ab",
      name: "web",
    });
  });
  it.each([
    "host/web/extra",
    "host",
    "host/",
    "/web",
    "host//web",
    "host/web/",
    "host/../web",
    "host/We b",
    "..\0/web",
  ])("refuse %j", (id) => {
    expect(() => hostedId("a GroupDeployment", "group", id)).toThrow("is <host id>/<group name>");
  });
  it.each(["host/web", "", "..", "a b", "a\0"])("of the host itself refuse %j", (id) => {
    expect(() => hostId("a NetworkPolicy", id)).toThrow("is <host id>");
  });
});

describe("ids of images", () => {
  it.each([
    ["r.example:5000", "a/b"],
    ["[2001:db8::10]:5000", "web"],
  ])("have a server and a repository: %s/%s", (server, repository) => {
    expect(imageId("DebianImage", `${server}/${repository}@${digest}`)).toEqual({ server, repository, digest });
  });
  it.each([
    `r/a//b@${digest}`,
    `r/../b@${digest}`,
    `r/a@x@${digest}`,
    `r//a@${digest}`,
    `https://r/a@${digest}`,
    `r/a@${digest}/extra`,
    `r/A@${digest}`,
  ])("refuse %s", (id) => {
    expect(() => imageId("DebianImage", id)).toThrow("is <server>/<repository>@sha256");
  });
});

describe("files of an image", () => {
  const failures = async (files: Record<string, string>) => {
    const backends = { images: { inputsHash: async () => "hash" } } as unknown as Backends;
    const inputs = { registry: { server: "r" }, repository: "web", packages: ["nginx"], files };
    return (await debianImage.check({ backends }, { inputs, oldInputs: undefined })).failures;
  };
  it.each<[string, RegExp]>([
    ["etc/x", /absolute path/],
    ["/../x", /without '..'/],
    ["/a/..", /without '..'/],
    ["/a/./x", /without/],
    ["/a//x", /without/],
    ["//x", /without/],
    ["/a/", /without/],
    ["/", /without/],
    ["", /absolute path/],
    ["/a\0b", /zero byte/],
    ["/etc/.wh.passwd", /removes a file/],
    ["/etc/.wh..wh..opq", /removes a file/],
    ["/.wh.etc/x", /removes a file/],
    ["/etc/nginx.conf/x", /"\/etc\/nginx.conf", which is a file/],
    [`/${"é".repeat(128)}`, /255 bytes/],
    [`${"/a".repeat(2048)}`, /4095/],
  ])("refuse %j", async (file, reason) => {
    const found = await failures({ "/etc/nginx.conf": "", [file]: "" });
    expect(found).toEqual([{ property: `files[${JSON.stringify(file)}]`, reason: expect.stringMatching(reason) }]);
  });
  it.each(["/etc/a.wh.b", "/etc/...", "/a b", "/constructor"])("take %j", async (file) => {
    expect(await failures({ "/etc/nginx.conf": "", [file]: "" })).toEqual([]);
  });
});

describe("names that every object has", () => {
  it.each(["constructor", "toString", "__proto__", "hasOwnProperty"])("%s is no property, type or function", (name) => {
    const inputs = JSON.parse(`{"${name}": {"a": 1}}`) as never;
    const { failures } = validate("palisade:index:Registry", inputs);
    expect(failures).toContainEqual({ property: name, reason: expect.stringContaining("there is no property") });
    expect(() => validate(name, {})).toThrow("not in the schema");
    expect(() => validateFunction(packageSchema, name, {})).toThrow("not in the schema");
  });
  it.each(["constructor", "toString"])("%s is added and taken away like any other key", (name) => {
    const path = `environment.${name}`;
    expect([...differences("environment", {}, { [name]: "1" })]).toEqual([{ path, change: "add" }]);
    expect([...differences("environment", { [name]: "1" }, {})]).toEqual([{ path, change: "delete" }]);
  });
});
