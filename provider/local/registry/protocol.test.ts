/** A registry that says things in all the ways that its specifications allow, and in some that they do not. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { RegistryAccess } from "../../backends/index.js";
import { makeRegistryCertificates } from "../certificates/registry-certificate.js";
import { manifestDigest } from "./client.js";
import { digestOf } from "./digest.js";
import { imageManifestType } from "./media-types.js";
import { referrers } from "./referrers.js";
import { Repository } from "./repository.js";

let server: Server;
let access: RegistryAccess;
let answer: (request: IncomingMessage, response: ServerResponse, url: URL) => void;
let repository: Repository;
const subject = `sha256:${"5".repeat(64)}`;
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }));

beforeAll(async () => {
  const { certificate, key, authority } = await makeRegistryCertificates("protocol");
  server = createServer({ cert: certificate, key }, (request, response) =>
    answer(request, response, new URL(request.url!, `https://${request.headers.host}`)),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  access = { server: `127.0.0.1:${port}`, username: "user", password: "password", ca: authority };
  repository = new Repository(access, "web");
});
afterEach(() => {
  repository.close();
  repository = new Repository(access, "web");
});
afterAll(() => {
  repository.close();
  server.close();
});

const descriptor = (digit: string) => ({ mediaType: imageManifestType, digest: `sha256:${digit.repeat(64)}`, size: 1 });

it("reads a media type with parameters", async () => {
  answer = (_request, response) => {
    response.setHeader("content-type", `${imageManifestType.toUpperCase()}; charset=utf-8`);
    response.end(manifest);
  };
  expect(await repository.manifest("latest")).toMatchObject({
    mediaType: imageManifestType,
    digest: digestOf(manifest),
  });
});

it.each([
  ["after another challenge", (realm: string) => [`Basic realm="a, b", Bearer realm="${realm}",service="s"`]],
  ["in a header of its own", (realm: string) => ['Basic realm="r"', `bearer Realm = "${realm}" , Service=s`]],
  ["before another challenge", (realm: string) => [`Bearer service="s", realm="${realm}", Basic realm="r"`]],
])("fetches a token for a challenge %s", async (_name, challenge) => {
  answer = (request, response, url) => {
    if (url.pathname === "/token") {
      expect(url.searchParams.get("kept")).toBe("1");
      expect(url.searchParams.get("service")).toBe("s");
      expect(request.headers.authorization).toMatch(/^Basic /);
      response.end(JSON.stringify({ token: null, access_token: "right" }));
    } else if (request.headers.authorization !== "Bearer right") {
      response.setHeader("www-authenticate", challenge(`https://${access.server}/token?kept=1`));
      response.writeHead(401).end();
    } else response.end(manifest);
  };
  expect((await repository.manifest("latest"))?.digest).toBe(digestOf(manifest));
});

it("says which token service answers what is no token", async () => {
  answer = (_request, response, url) => {
    if (url.pathname === "/token") return response.end("<html>");
    response.setHeader("www-authenticate", `Bearer realm="https://${access.server}/token"`);
    return response.writeHead(401).end();
  };
  await expect(repository.manifest("latest")).rejects.toThrow(/https:\/\/127\.0\.0\.1:\d+\/token: is HTML/);
});

it.each([
  ["/v2/web/blobs/uploads/1", "/v2/web/blobs/uploads/1", ""],
  ["1?_state=a%2Fb%20c~", "/v2/web/blobs/uploads/1", "?_state=a%2Fb%20c~&"],
  ["../../elsewhere/1?x", "/v2/web/elsewhere/1", "?x&"],
])("uploads to %s", async (location, path, query) => {
  const content = Buffer.from("blob");
  const seen: string[] = [];
  answer = (request, response) => {
    if (request.method === "HEAD") return response.writeHead(404).end();
    if (request.method === "POST") return response.writeHead(202, { location }).end();
    seen.push(request.url!);
    return response.writeHead(201).end();
  };
  await repository.putBlob({ digest: digestOf(content), size: content.length }, content);
  expect(seen).toEqual([`${path}${query || "?"}digest=${encodeURIComponent(digestOf(content))}`]);
});

it("reads all pages of a list, and passes over entries that are none", async () => {
  answer = (_request, response, url) => {
    if (!url.pathname.includes("/referrers/")) return response.writeHead(404).end();
    const page = Number(url.searchParams.get("page") ?? 1);
    if (page < 3) {
      response.setHeader("link", [`</other>; rel="prev"`, `<?page=${page + 1}>; title="a, b"; rel="last next"`]);
    }
    return response.end(
      JSON.stringify({ schemaVersion: 2, manifests: [null, {}, "x", { digest: "latest" }, descriptor(String(page))] }),
    );
  };
  expect((await referrers(repository, subject)).map(({ digest }) => digest)).toEqual(
    ["1", "2", "3"].map((digit) => descriptor(digit).digest),
  );
});

it.each(["null", '{"manifests":{}}', "<html></html>", "", "[]"])("says where %j is from", async (content) => {
  answer = (_request, response) => response.end(content);
  await expect(referrers(repository, subject)).rejects.toThrow(
    new RegExp(`^registry: https://${access.server}/v2/web/referrers/${subject}: `),
  );
});

it("asks Docker Hub at its registry", async () => {
  const hub = new Repository({ server: "docker.io" }, "alpine", AbortSignal.abort(new Error("not now")));
  expect(hub.server).toBe("docker.io");
  expect((hub as unknown as { path: (below: string) => string }).path("tags")).toBe("/v2/library/alpine/tags");
  expect((hub as unknown as { connection: { origin: string } }).connection.origin).toBe("https://registry-1.docker.io");
  await expect(
    manifestDigest({ server: "docker.io" }, "alpine", "3", AbortSignal.abort(new Error("not now"))),
  ).rejects.toThrow();
  hub.close();
});
