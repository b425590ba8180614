/** Images: of hosts, and of containers made from Debian packages. */
export { DebianImage, type DebianImageArgs } from "../sdk/debianImage.js";
export { HostImage, type HostImageArgs } from "../sdk/hostImage.js";
