/** Makes or finishes the owner's thing: writes its marker, passes the checkpoints, and marks it finished. */
import type { Operation } from "../../../provider/backends/index.js";
import type { Kind, Thing, World } from "./world.js";

export async function make<T>(
  world: World,
  kind: Kind,
  prefix: string,
  op: Operation,
  spec: T,
  checkpoints: string[],
): Promise<Thing<T>> {
  const thing: Thing<T> = world.ownedBy<T>(kind, op.owner) ?? {
    id: world.newId(prefix),
    owner: op.owner,
    finished: false,
    spec,
    observed: {},
  };
  thing.spec = spec;
  world.put(kind, thing);
  for (const checkpoint of ["marker-written", ...checkpoints]) {
    op.status(checkpoint);
    await op.checkpoint(checkpoint);
    await world.reach(checkpoint, op.signal);
  }
  const done = { ...thing, finished: true };
  world.put(kind, done);
  return done;
}
