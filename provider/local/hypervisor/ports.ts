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
 * Reserves what is published: a port that was chosen before stays. The marker has to be written afterwards; the caller
 * releases what is published no longer once nothing listens there.
 *
 * @returns the published ports with their host ports.
 */
export async function reservePorts(
  reservations: PortReservations,
  holder: string,
  marker: VirtualMachineMarker,
  wanted: PublishedPort[],
  signal: AbortSignal,
): Promise<PublishedPort[]> {
  marker.details.agentPort ??= await reservations.reserve(
    holder,
    { protocol: "TCP", address: agentAddress, port: 0 },
    signal,
  );
  const ports: PublishedPort[] = [];
  for (const [index, port] of wanted.entries()) {
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
