/**
 * Which resource a host's connection stands for. A group that runs on a host is gone with it, and the engine can only be told
 * so by a resource (`deletedWith`), while users pass connections, which are plain data.
 */
import * as pulumi from "@pulumi/pulumi";

const resources = new WeakMap<object, pulumi.Resource>();

/** Remembers the resource behind a host's `connection` output; every host component calls this. */
export function rememberHostResource(connection: pulumi.Output<unknown>, resource: pulumi.Resource): void {
  resources.set(connection, resource);
}

/** The resource behind a connection; undefined for one that did not come straight from a host of this program. */
export function hostResourceOf(connection: unknown): pulumi.Resource | undefined {
  return typeof connection === "object" && connection !== null ? resources.get(connection) : undefined;
}
