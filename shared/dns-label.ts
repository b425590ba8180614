/**
 * Names of groups, containers and the like: labels of RFC 1123, in lower case. The agent's twin is `labelPattern` in
 * Go.
 */
export const dnsLabelPattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Whether a value is a DNS label: 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end. */
export function isDnsLabel(value: unknown): boolean {
  return typeof value === "string" && dnsLabelPattern.test(value);
}
