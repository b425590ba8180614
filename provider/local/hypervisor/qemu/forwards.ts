/** Forwarded ports of the user-mode network. */
import type { PublishedPort } from "../../../backends/index.js";
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

/** Converges the forwards of a running machine to the desired ones; connections of kept rules stay open. */
export async function changeForwards(qmp: Qmp, after: PublishedPort[]): Promise<void> {
  const before = await listForwards(qmp);
  for (const port of before.filter((old) => !after.some((kept) => sameForward(old, kept)))) {
    await qmp.human(`hostfwd_remove ${networkId} ${protocolOf(port)}:${port.hostAddress}:${port.hostPort}`);
  }
  for (const port of after.filter((added) => !before.some((kept) => sameForward(added, kept)))) {
    const complaint = (await qmp.human(`hostfwd_add ${networkId} ${forwardRule(port)}`)).trim();
    if (complaint) throw new Error(`publishedPorts: ${forwardRule(port)} was refused by QEMU: ${complaint}`);
  }
}

/** Forwards of a running machine, as QEMU lists them. */
export async function listForwards(qmp: Qmp): Promise<PublishedPort[]> {
  const table = await qmp.human("info usernet");
  const row = /^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)/gm;
  return [...table.matchAll(row)].map((match) => ({
    protocol: match[1] as "TCP" | "UDP",
    hostAddress: match[2]!,
    hostPort: Number(match[3]),
    port: Number(match[4]),
  }));
}
