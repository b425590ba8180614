/**
 * Palisade on Azure (experimental). Needs the optional peer `@pulumi/azure-native`, which the rest of Palisade never
 * loads.
 */
export { ContainerGroup, type ContainerGroupArgs, type Endpoint } from "./container-group.js";
