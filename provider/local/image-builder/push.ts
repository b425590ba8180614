/** Pushes an image layout to a registry, by skopeo. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RegistryAccess } from "../../backends/index.js";
import { run } from "../../system/command.js";

/**
 * Credentials and CA lie in files of a private folder while skopeo runs; neither its arguments nor its environment hold
 * any.
 */
export async function push(
  layout: string,
  tag: string,
  registry: RegistryAccess,
  repository: string,
  signal: AbortSignal,
): Promise<void> {
  // mkdtemp makes the folder with mode 0700.
  const folder = await mkdtemp(join(tmpdir(), "palisade-push-"));
  try {
    const { server, username, password, ca } = registry;
    const auth = username === undefined ? undefined : Buffer.from(`${username}:${password ?? ""}`).toString("base64");
    const authFile = join(folder, "auth.json");
    const certificates = join(folder, "certs");
    await mkdir(certificates);
    await writeFile(authFile, JSON.stringify({ auths: auth === undefined ? {} : { [server]: { auth } } }), {
      mode: 0o600,
    });
    if (ca !== undefined) await writeFile(join(certificates, "ca.crt"), ca);
    await run(
      "skopeo",
      [
        ...["copy", "--quiet", "--preserve-digests", "--retry-times", "2", "--authfile", authFile],
        ...["--dest-cert-dir", certificates, `oci:${layout}:${tag}`, `docker://${server}/${repository}:${tag}`],
      ],
      { signal, environment: { TMPDIR: folder } },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
