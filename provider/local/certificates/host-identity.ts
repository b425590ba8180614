/** Decides for which id and key a host gets a certificate: those that are recorded for it, and no other host's. */
import type { Authority } from "./authority.js";
import { CertificateRefusedError, requestedKeyDigest, requireHostId, signHostCertificate } from "./host-certificate.js";

/** A host's id and its key, as `publicKeyDigest` gives it. */
export interface HostIdentity {
  hostId: string;
  keyDigest: string;
}

/** What is recorded of a host. Records of older versions have no key. */
export type RecordedIdentity = Pick<HostIdentity, "hostId"> & Partial<HostIdentity>;

/** The record of one host's identity on this machine. */
export interface IdentityRecord {
  /** Where the identity lies, for messages, e.g. "state disk disk-0123456789ab". */
  place: string;
  /** Runs `work` while nobody else on this machine records an identity. */
  locked<T>(work: () => Promise<T>): Promise<T>;
  /** The recorded identity; undefined before the first contact. */
  read(): Promise<RecordedIdentity | undefined>;
  /** The other place on this machine that an id belongs to; undefined when there is none. */
  otherOwner(hostId: string): Promise<string | undefined>;
  /** Records the identity. A record that has it already is not written. */
  write(identity: HostIdentity): Promise<void>;
}

/** What the decision about a claimed identity rests on. */
export interface IdentityEvidence {
  place: string;
  recorded?: RecordedIdentity | undefined;
  otherOwner?: string | undefined;
  /** Who the other end of the connection is, by its current certificate. Undefined at first contact. */
  connection?: HostIdentity | undefined;
}

/**
 * Decides whether a host may have a certificate for the identity that it claims.
 *
 * @throws CertificateRefusedError when the id or the key is not that of the record or of the connection, or when
 * another place on this machine has the id.
 */
export function requireOwnIdentity(claimed: HostIdentity, evidence: IdentityEvidence): void {
  const { place, recorded, otherOwner, connection } = evidence;
  const asks = `host ${claimed.hostId} asks for a certificate`;
  const suspect = "the host may be compromised: examine it, and replace it together with its state disk";
  if (connection && claimed.hostId !== connection.hostId) {
    throw new CertificateRefusedError(`${asks} over the connection of host ${connection.hostId}; ${suspect}`);
  }
  if (recorded && claimed.hostId !== recorded.hostId) {
    throw new CertificateRefusedError(`${asks} where ${recorded.hostId} is expected (${place}); ${suspect}`);
  }
  if (!recorded && otherOwner !== undefined) {
    throw new CertificateRefusedError(`${asks} from ${place}, but this id belongs to ${otherOwner}; ${suspect}`);
  }
  // The agent keeps its key as long as its id, so another key is another host's.
  for (const [owner, keyDigest] of [
    [`recorded for ${recorded?.hostId} (${place})`, recorded?.keyDigest],
    [`of the connection of host ${connection?.hostId}`, connection?.keyDigest],
  ] as const) {
    if (keyDigest === undefined || keyDigest === claimed.keyDigest) continue;
    const keys = `the key sha256:${claimed.keyDigest}, not for sha256:${keyDigest}, which is ${owner}`;
    throw new CertificateRefusedError(`${asks} for ${keys}; ${suspect}`);
  }
}

/**
 * Signs a certificate for the identity that belongs to the host, and records it before the certificate is given. This
 * is the only way to a host's certificate.
 *
 * @param connection who the other end is by its current certificate, at a renewal.
 * @returns PEM, as from `signHostCertificate`.
 * @throws CertificateRefusedError when the identity or the request is refused; then nothing is recorded.
 */
export async function issueHostCertificate(
  authority: Authority,
  request: { hostId: string; certificateRequest: string },
  record: IdentityRecord,
  connection?: HostIdentity,
): Promise<string> {
  const { hostId, certificateRequest } = request;
  requireHostId(hostId);
  const claimed = { hostId, keyDigest: requestedKeyDigest(certificateRequest) };
  return record.locked(async () => {
    await requireByRecord(claimed, record, connection);
    const certificate = await signHostCertificate(authority, hostId, certificateRequest);
    await record.write(claimed);
    return certificate;
  });
}

/**
 * Records the identity that the certificate of an answering host proves, where there is no record yet.
 *
 * @throws CertificateRefusedError when it is not this host's.
 */
export async function recordProvenIdentity(record: IdentityRecord, proven: HostIdentity): Promise<void> {
  await record.locked(async () => {
    await requireByRecord(proven, record);
    await record.write(proven);
  });
}

/** Adds the key of an authenticated connection to a record of an older version, which has none. */
export async function completeRecord(record: IdentityRecord, connection: HostIdentity): Promise<void> {
  const lacksKey = async () => {
    const recorded = await record.read();
    return recorded?.hostId === connection.hostId && recorded.keyDigest === undefined;
  };
  // Nearly every record has its key, so the lock is taken only for one that lacks it.
  if (!(await lacksKey())) return;
  await record.locked(async () => {
    if (await lacksKey()) await record.write(connection);
  });
}

async function requireByRecord(claimed: HostIdentity, record: IdentityRecord, connection?: HostIdentity) {
  const [recorded, otherOwner] = await Promise.all([record.read(), record.otherOwner(claimed.hostId)]);
  requireOwnIdentity(claimed, { place: record.place, recorded, otherOwner, connection });
}
