/** The environment `azure` (experimental): the website as a container group of Azure Container Instances. */
import * as pulumi from "@pulumi/pulumi";
import { ContainerGroup } from "../components/azure/index.js";
import { type Configuration, registryCredentials } from "./configuration.js";
import { website } from "./website.js";

/** Declares the environment; returns the stack's outputs. */
export function azure(configuration: Configuration) {
  const web = new ContainerGroup("web", {
    ...website(configuration.image!),
    resourceGroupName: configuration.resourceGroupName!,
    location: configuration.location,
    imageRegistryCredentials: registryCredentials(configuration),
  });
  const address = web.endpoints.apply((endpoints) => endpoints[0]?.address);
  return {
    /** Where the group answers. */
    url: pulumi.interpolate`http://${address}/`,
    /** The same as address:port. */
    address,
    /** Name of the group in the resource group. */
    group: web.containerGroupName,
    /** State of the group. */
    groupState: web.state,
  };
}
