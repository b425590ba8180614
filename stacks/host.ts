/** What the environments with a host of Palisade have in common. */
import { defaultKeysDirectory, HostImage, Provider } from "../components/index.js";
import type { Configuration } from "./configuration.js";

/** The provider, the host's image and where the operator's keys are. */
export function hostImage(configuration: Configuration) {
  const { imageDigest: digest, mode, keysDirectory = defaultKeysDirectory() } = configuration;
  // An explicit provider: the default one would get every setting of the namespace `palisade`, including those of the
  // stack.
  const provider = new Provider("palisade", {
    stateDirectory: configuration.stateDirectory,
    cacheDirectory: configuration.cacheDirectory,
  });
  const image = new HostImage("host", digest ? { digest } : { build: { keysDirectory, mode } }, { provider });
  return { provider, image, keysDirectory };
}
