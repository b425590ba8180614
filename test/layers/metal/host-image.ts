/** The host image that is installed: built here, or taken from what was built of the same content. */
import { initKeys } from "../../../cli/keys.js";
import { createLocalBackends } from "../../../provider/local/index.js";
import { noCheckpoint } from "../../../provider/backends/index.js";
import { defaultCacheDirectory, defaultKeysDirectory, defaultStateDirectory } from "../../../shared/directories.js";

/** Digest of the image for the operator's keys. */
export async function hostImage(): Promise<string> {
  const keysDirectory = defaultKeysDirectory();
  await initKeys(keysDirectory);
  const { hostImages } = createLocalBackends({
    stateDirectory: defaultStateDirectory(),
    cacheDirectory: defaultCacheDirectory(),
  });
  const urn = "urn:pulumi:test::metal-test::palisade:index:HostImage::host";
  const { digest } = await hostImages.build(
    {
      owner: { backend: "", project: "metal-test", stack: "test", urn },
      signal: new AbortController().signal,
      deadline: Date.now() + 30 * 60_000,
      log: () => undefined,
      status: (message) => console.log(message),
      checkpoint: noCheckpoint,
    },
    { mode: "enforce", keysDirectory },
  );
  return digest;
}
