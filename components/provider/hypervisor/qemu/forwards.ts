/** Forwarded ports of the user-mode network. */
import type { PublishedPort } from "../../backends.js";
import type { Qmp } from "./qmp.js";

/** Id of the machine's only network. */
export const networkId = "net0";

const protocolOf = (port: PublishedPort) => port.protocol.toLowerCase();

/** As in `-netdev user,hostfwd=` and the monitor's `hostfwd_add`. */
export function forwardRule(port: PublishedPort): string {
  return `${protocolOf(port)}:${port.hostAddress}:${port.hostPort}-:${port.port}`;
}

/** Whether two rules are the same forward. */
export function sameForward(a: PublishedPort, b: PublishedPort): boolean {
  return forwardRule(a) === forwardRule(b);
}

/** Changes the forwards of a running machine; connections of kept rules go on. */
export async function changeForwards(qmp: Qmp, before: PublishedPort[], after: PublishedPort[]): Promise<void> {
  for (const port of before.filter((old) => !after.some((kept) => sameForward(old, kept)))) {
    await qmp.human(`hostfwd_remove ${networkId} ${protocolOf(port)}:${port.hostAddress}:${port.hostPort}`);
  }
  for (const port of after.filter((added) => !before.some((kept) => sameForward(added, kept)))) {
    const complaint = (await qmp.human(`hostfwd_add ${networkId} ${forwardRule(port)}`)).trim();
    if (complaint) throw new Error(`publishedPorts: ${forwardRule(port)} was refused by QEMU: ${complaint}`);
  }
}

/** Forwards of a running machine as QEMU lists them: guest port, protocol and host port. */
export async function listForwards(qmp: Qmp): Promise<{ protocol: "TCP" | "UDP"; hostPort: number; port: number }[]> {
  const table = await qmp.human("info usernet");
  return [...table.matchAll(/^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+\S+\s+(\d+)\s+\S+\s+(\d+)/gm)].map((match) => ({
    protocol: match[1] as "TCP" | "UDP",
    hostPort: Number(match[2]),
    port: Number(match[3]),
  }));
}
