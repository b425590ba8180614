import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { run } from "../../system/command.js";
import { withFolder } from "../../system/testing.js";
import { fileLayer } from "./file-layer.js";
import { writeLayout } from "./oci-layout.js";

const files = { "/etc/app/b.conf": "b\n", "/usr/local/bin/start": "#!/bin/sh\n" };
const configuration = {
  entrypoint: ["/usr/sbin/nginx"],
  command: ["-g", "daemon off;"],
  environment: { B: "2", A: "1" },
  workingDirectory: "/srv",
  labels: { "org.example.fact": "a value" },
};

it("writes an image whose digests fit its content, the same each time", async () => {
  await withFolder(async (folder) => {
    const digests = new Set<string>();
    for (const name of ["one", "two"]) {
      const directory = join(folder, name);
      await mkdir(directory);
      const layer = await fileLayer(files, join(directory, "layer.tar.gz"));
      digests.add(await writeLayout(directory, [layer], configuration, "v1"));
    }
    expect(digests.size).toBe(1);

    const [digest] = digests as Set<string> & Iterable<string>;
    const blob = (of: string) => readFile(join(folder, "one", "blobs", "sha256", of.slice("sha256:".length)));
    const sha256 = (data: Buffer) => `sha256:${createHash("sha256").update(data).digest("hex")}`;
    const manifest = JSON.parse((await blob(digest!)).toString()) as {
      config: { digest: string; size: number };
      layers: { digest: string; size: number }[];
    };
    const layer = await blob(manifest.layers[0]!.digest);
    expect(sha256(layer)).toBe(manifest.layers[0]!.digest);
    expect(layer.length).toBe(manifest.layers[0]!.size);
    const config = JSON.parse((await blob(manifest.config.digest)).toString()) as Record<string, never>;
    expect(config).toMatchObject({
      os: "linux",
      config: {
        Entrypoint: configuration.entrypoint,
        Cmd: configuration.command,
        Env: ["A=1", "B=2", expect.stringMatching(/^PATH=/)],
        WorkingDir: "/srv",
        Labels: configuration.labels,
      },
      rootfs: { type: "layers", diff_ids: [sha256(gunzipSync(layer))] },
    });
  });
});

it("packs files as root's, scripts executable", async () => {
  await withFolder(async (folder) => {
    const layer = await fileLayer(files, join(folder, "layer.tar.gz"));
    const listing = await run("tar", ["--list", "--verbose", "--numeric-owner", "--file", layer.file]);
    expect(listing).toMatch(/^-rw-r--r-- 0\/0 .* etc\/app\/b\.conf$/m);
    expect(listing).toMatch(/^-rwxr-xr-x 0\/0 .* usr\/local\/bin\/start$/m);
  });
});
