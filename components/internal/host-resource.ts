/**
 * The resource behind a host's connection. A group disappears with its host, and the engine learns this from a resource
 * (`deletedWith`). Users pass connections, which are plain data.
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
