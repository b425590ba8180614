/** Single queries about images in a registry, with one connection each. */
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { apiLocation } from "../../../shared/image-reference.js";
import type { RegistryAccess } from "../../backends/index.js";
import { RegistryConnection, type RegistryRequest } from "./connection.js";
import { configurationSchema, descriptorSchema } from "./documents.js";
import { manifestTypes } from "./media-types.js";

async function ask(access: RegistryAccess, request: RegistryRequest) {
  const connection = new RegistryConnection(access);
  try {
    return await connection.ask(request);
  } finally {
    connection.close();
  }
}

async function content<S extends v.GenericSchema>(
  schema: S,
  access: RegistryAccess,
  path: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<v.InferOutput<S>> {
  const answer = await ask(access, { method: "GET", path, headers, signal });
  if (answer.status !== 200) {
    throw new Error(`registry: ${access.server} answered HTTP ${answer.status} for ${path}`);
  }
  return decode(schema, answer.body, `registry: ${answer.url.href}`);
}

const pathOf = ({ server }: RegistryAccess, repository: string, below: string): string =>
  `/v2/${apiLocation(server, repository).repository}/${below}`;

/** Labels in the configuration of an image; empty when it has none. Throws when it is not there or is an index. */
export async function imageLabels(
  access: RegistryAccess,
  repository: string,
  digest: string,
  signal?: AbortSignal,
): Promise<Record<string, string>> {
  const at = pathOf(access, repository, `manifests/${digest}`);
  const accept = { accept: manifestTypes.join(", ") };
  const { config } = await content(object({ config: v.nullish(descriptorSchema) }), access, at, accept, signal);
  if (!config) throw new Error(`registry: ${access.server}/${repository}@${digest} is not a single image`);
  const blob = await content(
    configurationSchema,
    access,
    pathOf(access, repository, `blobs/${config.digest}`),
    {},
    signal,
  );
  return blob.config?.Labels ?? {};
}

/** Whether a registry answers and takes the credentials. Throws when nothing answers. */
export async function ping(access: RegistryAccess, signal?: AbortSignal): Promise<boolean> {
  return (await ask(access, { method: "GET", path: "/v2/", signal })).status === 200;
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
  const path = pathOf(access, repository, `manifests/${reference}`);
  const answer = await ask(access, { method: "HEAD", path, headers: { accept: manifestTypes.join(", ") }, signal });
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
