/**
 * What the holder of a client certificate may do on a host. `operator`: call everything. `reader`: call what changes
 * nothing and returns no output of containers.
 */
export const clientRoles = ["operator", "reader"] as const;
export type ClientRole = (typeof clientRoles)[number];
