/** Renewal of a host's certificate over the connection that it still protects. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { GetHostResponse } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { KeyPairFiles } from "../backends.js";
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
