/** The registries of a World, and what lies in them. */
import type { Operation, RegistryAccess, RegistryObserved, RegistrySpec } from "../../components/provider/backends.js";
import { make } from "./make.js";
import type { Kind, Thing, World } from "./world.js";

export function registryOf(thing: Thing<RegistrySpec>): RegistryObserved {
  const port = thing.spec.port || 5000;
  return {
    id: thing.id,
    port: thing.spec.port,
    server: `127.0.0.1:${port}`,
    username: "palisade",
    password: String(thing.observed["password"]),
    ca: "-----BEGIN CERTIFICATE-----\nfake registry\n-----END CERTIFICATE-----\n",
    powerState: thing.observed["powerState"] === "stopped" ? "stopped" : "running",
  };
}

/** Fails as a real registry does that is stopped or refuses the credentials. Registries elsewhere take everybody. */
export function demandAccess(world: World, access: RegistryAccess, repository: string): void {
  const { server, username, password } = access;
  const own = world
    .list<RegistrySpec>("registries")
    .map(registryOf)
    .filter((one) => one.server === server);
  if (own.length === 0) return;
  // Without a user name, those of this machine's registry are used.
  const open = own.filter((one) => username === undefined || (one.username === username && one.password === password));
  if (open.length === 0) {
    throw new Error(`registry: ${server} refuses access to ${repository} (HTTP 401); check username and password`);
  }
  if (open.every(({ powerState }) => powerState === "stopped")) {
    throw new Error(`the registry ${server} does not answer`);
  }
}

interface Published<T> {
  published?: T[];
}

/** What an owner has published: it stays in the registry when the owner publishes something else. */
function publishedBy<T>({ finished, spec, observed }: Thing<T>): T[] {
  return (observed as Published<T>).published ?? (finished ? [spec] : []);
}

/** Everything of a kind that was published, oldest first for each owner. */
export function published<T>(world: World, kind: Kind): T[] {
  return world.list<T>(kind).flatMap(publishedBy);
}

/** `make` for what goes to a registry. */
export async function publish<T>(
  world: World,
  kind: Kind,
  prefix: string,
  op: Operation,
  spec: T,
  checkpoints: string[],
): Promise<void> {
  const before = world.ownedBy<T>(kind, op.owner);
  const kept = before === undefined ? [] : publishedBy(before);
  if (before) world.put(kind, { ...before, observed: { ...before.observed, published: kept } });
  const done = await make(world, kind, prefix, op, spec, checkpoints);
  const others = kept.filter((one) => JSON.stringify(one) !== JSON.stringify(spec));
  world.put(kind, { ...done, observed: { ...done.observed, published: [...others, spec] } });
}
