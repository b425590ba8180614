/** The program that Pulumi runs. The configuration chooses the environment; the stack's name means nothing. */
import { type Configuration, type Environment, readConfiguration } from "./configuration.js";
import { local } from "./local.js";

const programs: Record<Environment, (configuration: Configuration) => ReturnType<typeof local>> = { local };

const configuration = readConfiguration();
const outputs = programs[configuration.environment](configuration);

/** Where the group answers. */
export const url = outputs.url;
/** The same as address:port. */
export const address = outputs.address;
/** Integrity as the host's kernel reports it. */
export const integrity = outputs.integrity;
/** Identity of the host. */
export const hostId = outputs.hostId;
/** Digest of the image the host runs. */
export const hostImage = outputs.hostImage;
/** kvm or tcg. */
export const accelerator = outputs.accelerator;
/** Seconds from the machine's last start to ready. */
export const bootSeconds = outputs.bootSeconds;
/** File with the host's serial console. */
export const serialLog = outputs.serialLog;
/** The local registry, as in image references. */
export const registry = outputs.registry;
/** Name of the group on the host. */
export const group = outputs.group;
/** State of the group. */
export const groupState = outputs.groupState;
