/**
 * How the tools reach the registry in which they work: by private files, as neither arguments nor environment may hold
 * a password.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { RegistryAccess } from "../../backends/index.js";
import { isAbsent } from "../../system/atomic-file.js";

export interface ToolAccess {
  /** Paths only. */
  environment: Record<string, string>;
  /** File with the certificate of the registry's CA. */
  caFile: string;
}

const systemBundle = "/etc/ssl/certs/ca-certificates.crt";

/** @param folder of mode 0700. */
export async function writeToolAccess(folder: string, registry: RegistryAccess): Promise<ToolAccess> {
  const { server, username, password, ca } = registry;
  const auth = Buffer.from(`${username ?? ""}:${password ?? ""}`).toString("base64");
  const docker = join(folder, "docker");
  await mkdir(docker, { recursive: true, mode: 0o700 });
  await writeFile(join(docker, "config.json"), JSON.stringify({ auths: { [server]: { auth } } }), { mode: 0o600 });
  const caFile = join(folder, "ca.crt");
  await writeFile(caFile, ca ?? "");
  const bundle = join(folder, "bundle.crt");
  const system = await readFile(systemBundle, "utf8").catch((error: unknown) => {
    if (isAbsent(error)) return "";
    throw error;
  });
  await writeFile(bundle, `${system}\n${ca ?? ""}`);
  return { environment: { DOCKER_CONFIG: docker, SSL_CERT_FILE: bundle, TMPDIR: folder, ...proxies() }, caFile };
}

/** Copa passes proxies to the image's package manager under these names only. */
function proxies(): Record<string, string> {
  const of = (name: string) => process.env[name] ?? process.env[name.toLowerCase()];
  const names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
  return Object.fromEntries(
    names.map((name) => [name, of(name)]).filter((one): one is [string, string] => one[1] !== undefined),
  );
}
