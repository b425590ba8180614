/** The registries of a World, and what lies in them. */
import type { Operation, RegistryAccess, RegistryObserved, RegistrySpec } from "../../../provider/backends/index.js";
import { make } from "./make.js";
import type { Kind, Thing, World } from "./world.js";

/** The CA of every registry in a World. It is no certificate, and the same as in the states of earlier versions. */
export const registryAuthority = "-----BEGIN CERTIFICATE-----\nfake registry\n-----END CERTIFICATE-----\n";

export function registryOf(thing: Thing<RegistrySpec>): RegistryObserved {
  const port = thing.spec.port || 5000;
  return {
    id: thing.id,
    port: thing.spec.port,
    server: `127.0.0.1:${port}`,
    username: "palisade",
    password: String(thing.observed["password"]),
    ca: registryAuthority,
    powerState: thing.observed["powerState"] === "stopped" ? "stopped" : "running",
  };
}

/** The one password that registries of a World refuse. It is a canary, which tests search for. */
export const refusedPassword = "canary-refused-password";

/** Fails like a real registry that is stopped or refuses the credentials. */
export function requireAccess(world: World, { server, password }: RegistryAccess, repository: string): void {
  const own = world
    .list<RegistrySpec>("registries")
    .map(registryOf)
    .filter((one) => one.server === server);
  if (password === refusedPassword) {
    throw new Error(`registry: ${server} refuses access to ${repository} (HTTP 401); check username and password`);
  }
  if (own.length > 0 && own.every(({ powerState }) => powerState === "stopped")) {
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

/** Like `make`, for images that are pushed to a registry. */
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
