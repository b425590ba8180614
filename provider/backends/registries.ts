/** Registries of this machine, and access to any registry. */
import type { Operation } from "./operation.js";

export interface RegistrySpec {
  /** 0 chooses a free port. */
  port: number;
}
export interface RegistryObserved extends RegistrySpec {
  id: string;
  /** host:port as in image references. */
  server: string;
  username: string;
  password: string;
  /** PEM of the CA that signed the registry's certificate. */
  ca: string;
  powerState: "running" | "stopped";
}
export interface RegistryService {
  createRegistry(op: Operation, spec: RegistrySpec): Promise<RegistryObserved>;
  readRegistry(id: string): Promise<RegistryObserved | undefined>;
  /** The registry of this machine with that server, `<address>:<port>`; undefined when this machine has none. */
  findRegistry(server: string): Promise<RegistryObserved | undefined>;
  updateRegistry(op: Operation, id: string, spec: RegistrySpec): Promise<RegistryObserved>;
  deleteRegistry(op: Operation, id: string): Promise<void>;
}

export interface RegistryAccess {
  server: string;
  username?: string;
  password?: string;
  ca?: string;
}
