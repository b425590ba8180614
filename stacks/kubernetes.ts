/** The environment `kubernetes` (experimental): the website as a pod of the cluster that the current context names. */
import * as pulumi from "@pulumi/pulumi";
import { ContainerGroup } from "../components/kubernetes/index.js";
import { type Configuration, registryCredentials } from "./configuration.js";
import { website } from "./website.js";

/** Declares the environment; returns the stack's outputs. */
export function kubernetes(configuration: Configuration) {
  const web = new ContainerGroup("web", {
    ...website(configuration.image!),
    namespace: configuration.namespace,
    runtimeClassName: configuration.runtimeClassName,
    imageRegistryCredentials: registryCredentials(configuration),
  });
  const address = web.endpoints.apply((endpoints) => endpoints[0]?.address);
  return {
    /** Where the group answers. */
    url: pulumi.interpolate`http://${address}/`,
    /** The same as address:port. */
    address,
    /** Name of the group in its namespace. */
    group: web.containerGroupName,
    /** State of the group. */
    groupState: web.state,
  };
}
