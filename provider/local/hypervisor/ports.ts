/** The ports of this machine that lead to a virtual machine. */
import type { PublishedPort } from "../../backends/index.js";
import type { PortReservations } from "../../system/ports.js";
import { PortTakenError } from "../../system/ports.js";
import type { VirtualMachineMarker } from "./markers.js";

const agentAddress = "127.0.0.1";
/** Port of the agent in every host. */
export const agentGuestPort = 8443;

/** The forward that leads to the agent. */
export function agentForward(marker: VirtualMachineMarker): PublishedPort {
  if (marker.details.agentPort === undefined) throw new Error(`${marker.id}: no port is reserved for its agent`);
  return { port: agentGuestPort, protocol: "TCP", hostAddress: agentAddress, hostPort: marker.details.agentPort };
}

/**
 * Reserves the published ports; a port that was chosen before stays. The caller writes the marker afterwards, and
 * releases ports that are no longer published once nothing listens there.
 *
 * @returns the published ports with their host ports.
 */
export async function reservePorts(
  reservations: PortReservations,
  holder: string,
  marker: VirtualMachineMarker,
  published: PublishedPort[],
  signal: AbortSignal,
): Promise<PublishedPort[]> {
  marker.details.agentPort ??= await reservations.reserve(
    holder,
    { protocol: "TCP", address: agentAddress, port: 0 },
    signal,
  );
  const ports: PublishedPort[] = [];
  for (const [index, port] of published.entries()) {
    const before = marker.details.ports.find(
      (old) => old.port === port.port && old.protocol === port.protocol && old.hostAddress === port.hostAddress,
    );
    const hostPort = port.hostPort || before?.hostPort || 0;
    try {
      const { protocol, hostAddress: address } = port;
      ports.push({
        ...port,
        hostPort: await reservations.reserve(holder, { protocol, address, port: hostPort }, signal),
      });
    } catch (error) {
      if (!(error instanceof PortTakenError)) throw error;
      throw new Error(`publishedPorts[${index}].hostPort: ${error.message}`, { cause: error });
    }
  }
  return ports;
}
