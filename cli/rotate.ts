/**
 * A new CA for hosts and their clients, without new state disks. First every host accepts both CAs and gets a
 * certificate of the new one; then the new one takes the place of the old one here, and hosts drop the old one. Each
 * step may be repeated after an interruption.
 */
import { createPublicKey } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import path from "node:path";
import { HostAgentClient } from "../provider/local/agent-client/client.js";
import { readAuthority } from "../provider/local/certificates/authority.js";
import { clientCertificateDays, signClientCertificate } from "../provider/local/certificates/client-certificate.js";
import { issueHostCertificate } from "../provider/local/certificates/host-identity.js";
import { isOfFolder } from "../provider/local/certificates/replaced-authority.js";
import { HypervisorMarkers } from "../provider/local/hypervisor/markers.js";
import { VirtualMachines } from "../provider/local/hypervisor/virtual-machines.js";
import { writeFileAtomic } from "../provider/system/atomic-file.js";
import { withLock } from "../provider/system/lock.js";
import { defaultCacheDirectory, defaultKeysDirectory, defaultStateDirectory, keyPair } from "../shared/directories.js";
import { generateKey, makeCertificate, readKey } from "./certificates.js";
import { authorityCertificate } from "./keys.js";
import { ensurePrivateFile, ensurePublicFile } from "./private-files.js";
import { type Connection, type HostRecord, readStack } from "./stack-state.js";

/** Options of `palisade keys rotate`. */
export interface RotateOptions {
  /** Whether the new CA takes the place of the old one. Default: hosts accept both. */
  finish?: boolean;
  /** Default: the folder in the operator's home. */
  keys?: string;
  stack?: string;
}

/** What `keys rotate` did. */
export interface RotateReport {
  /** `prepared`: hosts accept both CAs. `finished`: the new one is in use here, and hosts accept no other one. */
  state: "prepared" | "finished";
  /** The hosts of the stack; `error` says why the step is not done on one. */
  hosts: { name: string; hostId?: string; error?: string }[];
}

/**
 * Does the step that is due, on all hosts of a stack.
 *
 * @throws Error when there is nothing to finish, or when a state or a key cannot be read.
 */
export async function rotateAuthority(options: RotateOptions): Promise<RotateReport> {
  const { finish = false, keys = defaultKeysDirectory(), stack } = options;
  const folder = path.join(keys, "hosts");
  const files = (name: string) => keyPair(folder, name);
  const [current, next, previous] = [files("ca"), files("ca.next"), files("ca.previous")];
  const read = (file: string) => readFileSync(file, "utf8").trim();
  // Names the file that is missing or wrong, before anything is made.
  if (!isReplaced()) await readAuthority(current);
  return withLock(path.join(folder, ".rotation.lock"), undefined, async () => {
    const { hosts } = await readStack(stack);
    if (!finish) {
      if (isReplaced()) throw new Error("a rotation was cut off at its end; run `palisade keys rotate --finish`");
      const pem = await ensurePrivateFile(next.keyFile, () => generateKey("ec-p256"));
      const subject = await readKey("ec-p256", pem);
      await ensurePublicFile(next.certificateFile, () => makeCertificate({ ...authorityCertificate, subject }));
      return { state: "prepared", hosts: await onEach(hosts, prepare) };
    }
    if (existsSync(next.certificateFile)) {
      if (!isReplaced()) {
        // Hosts that were made since then are among them.
        const prepared = await onEach(hosts, prepare);
        if (prepared.some(({ error }) => error !== undefined)) return { state: "prepared", hosts: prepared };
      }
      await replace();
    } else if (!existsSync(previous.certificateFile)) {
      throw new Error(`${next.certificateFile}: no rotation has begun; run \`palisade keys rotate\` first`);
    }
    const only = [read(current.certificateFile)];
    return { state: "finished", hosts: await onEach(hosts, (client) => client.setCertificateAuthorities(only)) };
  });

  /** The new CA is in its place, and what follows from that may be missing. */
  function isReplaced(): boolean {
    return existsSync(next.certificateFile) && read(next.certificateFile) === read(current.certificateFile);
  }

  /** The host accepts both CAs, and its own certificate is of the new one. */
  async function prepare(client: HostAgentClient, { hostId, certificateAuthority }: Connection): Promise<void> {
    // After another rotation, nothing would say that the new CA stands for this one.
    if (existsSync(previous.certificateFile) && read(previous.certificateFile) === certificateAuthority.trim()) {
      throw new Error("the stack's state names the CA of before the last rotation; run `pulumi up --refresh` first");
    }
    await client.setCertificateAuthorities([read(current.certificateFile), read(next.certificateFile)]);
    const request = { hostId, certificateRequest: await client.createCertificateRequest() };
    const machines = new VirtualMachines(new HypervisorMarkers(defaultStateDirectory()), defaultCacheDirectory());
    const record = (await machines.findHost(hostId))?.identityRecord ?? machines.metalIdentityRecord(hostId);
    const chain = await issueHostCertificate(await readAuthority(next), request, record, client.provenIdentity());
    await client.installCertificate(chain);
  }

  /** Replaces the files. The new certificate is the mark of what was done, so it is written first and removed last. */
  async function replace(): Promise<void> {
    if (!isReplaced()) {
      await writeFileAtomic(previous.keyFile, readFileSync(current.keyFile));
      await writeFileAtomic(previous.certificateFile, readFileSync(current.certificateFile));
      await writeFileAtomic(current.certificateFile, readFileSync(next.certificateFile));
    }
    if (existsSync(next.keyFile)) await writeFileAtomic(current.keyFile, readFileSync(next.keyFile));
    const client = files("client");
    const key = createPublicKey(readFileSync(client.keyFile));
    const role = { role: "operator", days: clientCertificateDays } as const;
    await writeFileAtomic(client.certificateFile, await signClientCertificate(await readAuthority(current), key, role));
    await rm(next.keyFile, { force: true });
    await rm(next.certificateFile);
  }

  async function onEach(
    hosts: HostRecord[],
    step: (client: HostAgentClient, connection: Connection) => Promise<void>,
  ): Promise<RotateReport["hosts"]> {
    // A host that has not answered yet gets the CA that is in use then.
    const known = hosts.filter(
      (host): host is HostRecord & { connection: Connection } => host.connection !== undefined,
    );
    return Promise.all(
      known.map(async ({ name, connection }) => {
        const { certificateFile: clientCertificateFile, keyFile: clientKeyFile } = files("client");
        const { hostId } = connection;
        const own = { ...connection, clientCertificateFile, clientKeyFile };
        if (!isOfFolder(own)) return { name, hostId, error: `is of another CA than ${current.certificateFile}` };
        const client = new HostAgentClient(own);
        try {
          // Before a step asks who the host is.
          await client.getHost();
          await step(client, connection);
          return { name, hostId };
        } catch (error) {
          return { name, hostId, error: (error as Error).message };
        } finally {
          client.close();
        }
      }),
    );
  }
}
