/**
 * Asks a registry for manifests: https://github.com/opencontainers/distribution-spec/blob/main/spec.md. Credentials by basic
 * authentication or, where the registry demands it, by a token: https://distribution.github.io/distribution/spec/auth/token/
 */
import { request, type RequestOptions } from "node:https";
import { rootCertificates } from "node:tls";
import type { RegistryAccess } from "../backends.js";

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

const manifestTypes = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];

function ask(url: URL, access: RegistryAccess, options: RequestOptions, signal?: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(url, {
      ...options,
      signal,
      timeout: 15_000,
      ...(access.ca === undefined ? {} : { ca: [...rootCertificates, access.ca] }),
    });
    call.on("response", (response) => {
      let body = "";
      response.on("data", (data: Buffer) => (body += data.toString()));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    call.on("timeout", () => call.destroy(new Error("no answer within 15 s")));
    call.on("error", (error) => {
      reject(signal?.aborted ? error : new Error(`the registry ${access.server} does not answer: ${error.message}`));
    });
    call.end();
  });
}

const basic = ({ username, password }: RegistryAccess) =>
  username === undefined
    ? {}
    : { authorization: `Basic ${Buffer.from(`${username}:${password ?? ""}`).toString("base64")}` };

/** Fetches the token a challenge asks for; undefined when the challenge is of another kind. */
async function token(challenge: string, access: RegistryAccess, signal?: AbortSignal): Promise<string | undefined> {
  if (!/^bearer /i.test(challenge)) return undefined;
  const field = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1];
  const realm = field("realm");
  if (realm === undefined) return undefined;
  const url = new URL(realm);
  // Over anything but TLS the credentials would be in clear.
  if (url.protocol !== "https:") return undefined;
  for (const name of ["service", "scope"]) {
    const value = field(name);
    if (value !== undefined) url.searchParams.set(name, value);
  }
  const answer = await ask(url, access, { headers: basic(access) }, signal);
  if (answer.status !== 200) return undefined;
  const body = JSON.parse(answer.body) as { token?: string; access_token?: string };
  return body.token ?? body.access_token;
}

async function authorized(
  access: RegistryAccess,
  path: string,
  method: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<Answer> {
  const url = new URL(`https://${access.server}${path}`);
  const first = await ask(url, access, { method, headers: { ...headers, ...basic(access) } }, signal);
  if (first.status !== 401) return first;
  const bearer = await token(String(first.headers["www-authenticate"] ?? ""), access, signal);
  if (bearer === undefined) return first;
  return ask(url, access, { method, headers: { ...headers, authorization: `Bearer ${bearer}` } }, signal);
}

/** Whether a registry answers and takes the credentials. Throws when nothing answers. */
export async function ping(access: RegistryAccess, signal?: AbortSignal): Promise<boolean> {
  return (await authorized(access, "/v2/", "GET", {}, signal)).status === 200;
}

/**
 * Digest of a manifest by tag or digest; undefined when the registry says that it is not there.
 *
 * @throws when the registry does not answer, or refuses the credentials.
 */
export async function manifestDigest(
  access: RegistryAccess,
  repository: string,
  reference: string,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const path = `/v2/${repository}/manifests/${reference}`;
  const answer = await authorized(access, path, "HEAD", { accept: manifestTypes.join(", ") }, signal);
  if (answer.status === 404) return undefined;
  if (answer.status === 401 || answer.status === 403) {
    throw new Error(
      `registry: ${access.server} refuses access to ${repository} (HTTP ${answer.status}); check username and password`,
    );
  }
  const digest = answer.headers["docker-content-digest"];
  if (answer.status !== 200 || typeof digest !== "string") {
    throw new Error(`registry: ${access.server} answered HTTP ${answer.status} for ${repository}@${reference}`);
  }
  return digest;
}
