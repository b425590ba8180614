/** Files of a local registry. Secrets are in files of mode 0600 only, never in arguments or environment. */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { hash } from "bcryptjs";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { makeRegistryCertificates } from "../certificates/registry-certificate.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";

export const registryUser = "palisade";

/** Password and certificates of a registry, which stay for its life; kept in `credentials.json`. */
export interface RegistryCredentials {
  password: string;
  /** PEM. */
  ca: string;
}

/** Credentials that were made before; undefined when making them was not finished. */
export async function readCredentials(folder: string): Promise<RegistryCredentials | undefined> {
  const file = join(folder, "credentials.json");
  const content = await readFileIfPresent(file);
  return content === undefined ? undefined : decode(object({ password: v.string(), ca: v.string() }), content, file);
}

/** Reads the credentials, or makes them; `credentials.json` is written last. */
export async function ensureCredentials(folder: string, id: string): Promise<RegistryCredentials> {
  const present = await readCredentials(folder);
  if (present) return present;
  const certificates = await makeRegistryCertificates(id);
  const password = randomBytes(24).toString("base64url");
  await writeFileAtomic(join(folder, "server.crt"), certificates.certificate);
  await writeFileAtomic(join(folder, "server.key"), certificates.key);
  // The lowest cost of bcrypt: a higher one slows down every request, and 192 random bits cannot be guessed anyway.
  await writeFileAtomic(join(folder, "htpasswd"), `${registryUser}:${await hash(password, 4)}\n`);
  const credentials = { password, ca: certificates.authority };
  await writeFileAtomic(join(folder, "credentials.json"), JSON.stringify(credentials));
  return credentials;
}

/** Writes the configuration and returns its path. */
export async function writeConfiguration(folder: string, port: number): Promise<string> {
  await mkdir(join(folder, "data"), { recursive: true, mode: 0o700 });
  const path = join(folder, "config.json");
  // YAML is a superset of JSON.
  const configuration = {
    version: "0.1",
    log: { level: "info", accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(folder, "data") },
      delete: { enabled: true },
      cache: { blobdescriptor: "inmemory" },
    },
    auth: { htpasswd: { realm: "palisade", path: join(folder, "htpasswd") } },
    http: {
      addr: `127.0.0.1:${port}`,
      secret: randomBytes(32).toString("hex"),
      tls: { certificate: join(folder, "server.crt"), key: join(folder, "server.key"), minimumtls: "tls1.2" },
    },
  };
  await writeFileAtomic(path, JSON.stringify(configuration));
  return path;
}
