/** An OCI registry on this machine. Everything that needs a registry takes any other one as well. */
export { Registry, type RegistryArgs } from "../../sdk/registry.js";
