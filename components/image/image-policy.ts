import * as pulumi from "@pulumi/pulumi";
import { isGiven, isLate } from "../internal/arguments.js";
import { hostResourceOf } from "../internal/host-resource.js";
import { ImagePolicy as Resource, type ImagePolicyArgs } from "../../sdk/imagePolicy.js";

export type { ImagePolicyArgs };

/**
 * Which images one host accepts.
 *
 * Without any policy, every image with a valid seal runs. With policies, an image has to match the repositories of at
 * least one policy of the host. When a policy that it matches names keys, the image also needs a cosign signature by
 * one of them. Otherwise its container waits with the reason `ImageRefused`. A stricter policy stops no running
 * container, but a refused image does not start again; `up` and `preview` warn of it.
 *
 * The import id is `<host id>/<name>`.
 */
export class ImagePolicy extends Resource {
  constructor(name: string, args: ImagePolicyArgs, opts: pulumi.CustomResourceOptions = {}) {
    // A policy is gone with its host's disk.
    const host = hostResourceOf(args.host);
    super(name, { ...args, keys: lateKeys(args.keys) }, host ? { deletedWith: host, ...opts } : opts);
  }
}

/** A policy without keys requires no signature. An output of keys that has no value must not have that effect. */
function lateKeys(keys: ImagePolicyArgs["keys"]): ImagePolicyArgs["keys"] {
  if (!isLate(keys)) return keys;
  return pulumi.output(keys).apply((known) => {
    if (isGiven(known)) return known;
    throw new pulumi.RunError(
      "keys: is an output without a value; leave it out for a policy that asks for no signature",
    );
  });
}
