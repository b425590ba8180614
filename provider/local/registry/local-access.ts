/** Access to a registry that may be one of this machine's. */
import type { RegistryAccess, RegistryService } from "../../backends/index.js";

/** With the credentials of this machine's registry of that server, when none are given and it is one. */
export async function withLocalCredentials(
  registry: RegistryAccess,
  findRegistry: RegistryService["findRegistry"],
): Promise<RegistryAccess> {
  const local = registry.username === undefined ? await findRegistry(registry.server) : undefined;
  return local ? { ...registry, username: local.username, password: local.password, ca: local.ca } : registry;
}
