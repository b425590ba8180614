/** A machine as it is: from its processes, QEMU's monitor and the host's agent. */
import { readFile } from "node:fs/promises";
import { hostPort, httpsUrl } from "../../../shared/host-port.js";
import type {
  ExpectedIntegrity,
  HostConnection,
  IntegrityFacts,
  VirtualMachineObserved,
} from "../../backends/index.js";
import type { VirtualMachineMarker } from "./markers.js";
import { agentForward } from "./ports.js";

/** Address under which slirp shows the loopback of the machine that runs QEMU to the guest. */
const loopbackAddress = "10.0.2.2";

/** How the host's agent is reached; undefined before first contact. */
export async function connectionOf(marker: VirtualMachineMarker): Promise<HostConnection | undefined> {
  const { hostId, ports, agentPort } = marker.details;
  if (hostId === undefined || agentPort === undefined) return undefined;
  const { certificateAuthority, clientIdentity } = marker.spec;
  const agent = agentForward(marker);
  return {
    hostId,
    endpoint: httpsUrl(agent.hostAddress, agent.hostPort),
    certificateAuthority: (await readFile(certificateAuthority.certificateFile, "utf8")).trim() + "\n",
    clientCertificateFile: clientIdentity.certificateFile,
    clientKeyFile: clientIdentity.keyFile,
    loopbackAddress,
    publishedPorts: ports.map(({ port, protocol, hostAddress, hostPort: number }) => ({
      port,
      protocol,
      address: hostPort(hostAddress, number),
    })),
  };
}

/**
 * The observed machine, with what only a running one has in `running`.
 *
 * @param expected undefined when its image is not in the store
 */
export async function observedMachine(
  marker: VirtualMachineMarker,
  serialLog: string,
  expected: ExpectedIntegrity | undefined,
  running: { cpus: number; memoryMiB: number; integrity?: IntegrityFacts } | undefined,
): Promise<VirtualMachineObserved> {
  const { details, spec } = marker;
  const connection = await connectionOf(marker);
  return {
    ...spec,
    id: marker.id,
    publishedPorts: details.ports,
    powerState: running ? "running" : "stopped",
    cpus: running?.cpus ?? spec.cpus,
    memoryMiB: running?.memoryMiB ?? spec.memoryMiB,
    accelerator: details.started?.accelerator ?? (spec.acceleration === "kvm" ? "kvm" : "tcg"),
    serialLog,
    ...(details.bootSeconds === undefined ? {} : { bootSeconds: details.bootSeconds }),
    ...(connection ? { connection } : {}),
    ...(running?.integrity ? { integrity: running.integrity } : {}),
    ...(expected ? { expectedIntegrity: expected } : {}),
  };
}
