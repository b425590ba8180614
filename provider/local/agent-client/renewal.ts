/** Renewal of a host's certificate over the connection that it still protects. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { GetHostResponse } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { HostConnection, KeyPairFiles } from "../../backends/index.js";
import { readAuthority } from "../certificates/authority.js";
import { isRenewalDue, signHostCertificate } from "../certificates/host-certificate.js";
import type { HostAgentClient } from "./client.js";

/** Renews when less than a third of the certificate's life is left. */
export async function renewIfDue(
  client: Pick<HostAgentClient, "createCertificateRequest" | "installCertificate">,
  host: GetHostResponse,
  authorityFiles: KeyPairFiles,
): Promise<boolean> {
  if (!host.certificateNotAfter || !isRenewalDue(timestampDate(host.certificateNotAfter))) return false;
  const authority = await readAuthority(authorityFiles);
  const request = await client.createCertificateRequest();
  await client.installCertificate(await signHostCertificate(authority, host.hostId, request));
  return true;
}

/**
 * The authority of a host that no hypervisor of this machine knows, such as one on bare metal: it lies beside the
 * client's certificate, where `palisade keys init` makes it. Undefined when there is none, or when it is not the host's
 * authority.
 */
export async function authorityBeside(connection: HostConnection): Promise<KeyPairFiles | undefined> {
  const file = (name: string) => path.join(path.dirname(connection.clientCertificateFile), name);
  const found = await readFile(file("ca.crt"), "utf8").catch(() => "");
  return found.trim() === connection.certificateAuthority.trim()
    ? { certificateFile: file("ca.crt"), keyFile: file("ca.key") }
    : undefined;
}
