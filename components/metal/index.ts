/** Hosts on machines of their own. Needs the npm package `@pulumi/command` 1.2.1. Experimental. */
export { BareMetalHost, type BareMetalHostArgs } from "./bare-metal-host.js";
export type { DiskRule } from "./disks.js";
