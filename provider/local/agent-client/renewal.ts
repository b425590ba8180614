/** Renewal of a host's certificate over the connection that it still protects, and what else the host has missed. */
import { access } from "node:fs/promises";
import path from "node:path";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { GetHostResponse } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { keyPair } from "../../../shared/directories.js";
import type { KeyPairFiles } from "../../backends/index.js";
import { readAuthority } from "../certificates/authority.js";
import { isRenewalDue } from "../certificates/host-certificate.js";
import { completeRecord, issueHostCertificate, type IdentityRecord } from "../certificates/host-identity.js";
import { isOfFolder, type AuthorityReference } from "../certificates/replaced-authority.js";
import { readRevocations } from "../certificates/revocations.js";
import type { HostAgentClient } from "./client.js";

/**
 * Converges a host: renews its certificate when less than a third of the life is left, and declares the
 * revocations that it has missed. What the host says of itself decides nothing: the id and the key are those of the
 * connection and of the record.
 *
 * @throws CertificateRefusedError when the host asks for another id or another key.
 */
export async function convergeHost(
  client: Pick<
    HostAgentClient,
    "createCertificateRequest" | "installCertificate" | "provenIdentity" | "revokeClientCertificates"
  >,
  host: GetHostResponse,
  authorityFiles: KeyPairFiles,
  record: IdentityRecord,
): Promise<void> {
  const connection = client.provenIdentity();
  await completeRecord(record, connection);
  if (host.certificateNotAfter && isRenewalDue(timestampDate(host.certificateNotAfter))) {
    const authority = await readAuthority(authorityFiles);
    const certificateRequest = await client.createCertificateRequest();
    const request = { hostId: host.hostId, certificateRequest };
    await client.installCertificate(await issueHostCertificate(authority, request, record, connection));
  }
  const revoked = await readRevocations(authorityFiles.certificateFile);
  const missed = revoked.filter((serialNumber) => !host.revokedSerialNumbers.includes(serialNumber));
  if (missed.length > 0) await client.revokeClientCertificates(missed);
}

/**
 * The authority of a host that no hypervisor of this machine knows, such as one on bare metal: it lies beside the
 * client's certificate, where `palisade keys init` makes it. Undefined when its key is not there, or when it is not the
 * host's authority and did not take its place.
 */
export async function authorityBeside(connection: AuthorityReference): Promise<KeyPairFiles | undefined> {
  const { certificateFile, keyFile } = keyPair(path.dirname(connection.clientCertificateFile), "ca");
  const hasKey = await access(keyFile).then(
    () => true,
    () => false,
  );
  return hasKey && isOfFolder(connection) ? { certificateFile, keyFile } : undefined;
}
