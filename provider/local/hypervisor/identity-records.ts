/** Records of hosts' identities: in the markers of state disks, and in files of their own for hosts on bare metal. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { withLock } from "../../system/lock.js";
import { requireHostId } from "../certificates/host-certificate.js";
import type { HostIdentity, IdentityRecord, RecordedIdentity } from "../certificates/host-identity.js";
import type { HypervisorMarkers } from "./markers.js";

const metalSchema = object({ hostId: v.string(), hostKeyDigest: v.string() });

export class IdentityRecords {
  constructor(private readonly markers: HypervisorMarkers) {}

  /** The record of the host whose identity lies on a state disk. */
  ofDisk(diskId: string): IdentityRecord {
    const { disks, machines } = this.markers;
    return {
      place: `state disk ${diskId}`,
      locked: (work) => this.locked(work),
      read: async () => {
        const { hostId, hostKeyDigest: keyDigest } = (await disks.existing(diskId)).details;
        if (hostId === undefined) return undefined;
        return { hostId, ...(keyDigest === undefined ? {} : { keyDigest }) };
      },
      otherOwner: async (hostId) => {
        const disk = (await disks.list()).find(({ id, details }) => id !== diskId && details.hostId === hostId);
        if (disk) return `state disk ${disk.id}`;
        const machine = (await machines.list()).find(
          ({ spec, details }) => spec.stateDiskId !== diskId && details.hostId === hostId,
        );
        if (machine) return `virtual machine ${machine.id}`;
        return (await this.readMetal(hostId)) && metalPlace(hostId);
      },
      write: ({ hostId, keyDigest }) =>
        // Resizing a disk and removals from its host write the same marker.
        disks.locked(diskId, undefined, async () => {
          const disk = await disks.existing(diskId);
          if (disk.details.hostId === hostId && disk.details.hostKeyDigest === keyDigest) return;
          disk.details.hostId = hostId;
          disk.details.hostKeyDigest = keyDigest;
          await disks.write(disk);
        }),
    };
  }

  /** The record of a host on bare metal that is being installed and says that this is its id. */
  ofNewMetalHost(hostId: string): IdentityRecord {
    requireHostId(hostId);
    const { disks, machines } = this.markers;
    return {
      place: metalPlace(hostId),
      locked: (work) => this.locked(work),
      read: () => this.readMetal(hostId),
      otherOwner: async (claimed) => {
        const disk = (await disks.list()).find(({ details }) => details.hostId === claimed);
        if (disk) return `state disk ${disk.id}`;
        const machine = (await machines.list()).find(({ details }) => details.hostId === claimed);
        return machine && `virtual machine ${machine.id}`;
      },
      write: (identity) => this.writeMetal(identity),
    };
  }

  /** The record of a host on bare metal that is in use: the stack knows its id. */
  ofMetalHost(hostId: string): IdentityRecord {
    return {
      ...this.ofNewMetalHost(hostId),
      read: async () => (await this.readMetal(hostId)) ?? { hostId },
    };
  }

  private locked<T>(work: () => Promise<T>): Promise<T> {
    return withLock(join(this.markers.stateDirectory, ".locks", "host-identities"), undefined, work);
  }

  private metalFile(hostId: string): string {
    requireHostId(hostId);
    return join(this.markers.stateDirectory, "metal-hosts", `${hostId}.json`);
  }

  private async readMetal(hostId: string): Promise<RecordedIdentity | undefined> {
    const file = this.metalFile(hostId);
    const content = await readFileIfPresent(file);
    if (content === undefined) return undefined;
    const { hostKeyDigest: keyDigest, ...recorded } = decode(metalSchema, content, file);
    return { hostId: recorded.hostId, keyDigest };
  }

  private async writeMetal({ hostId, keyDigest }: HostIdentity): Promise<void> {
    if ((await this.readMetal(hostId))?.keyDigest === keyDigest) return;
    const file = this.metalFile(hostId);
    await mkdir(join(file, ".."), { recursive: true, mode: 0o700 });
    await writeFileAtomic(file, `${JSON.stringify({ hostId, hostKeyDigest: keyDigest }, undefined, 2)}\n`);
  }
}

function metalPlace(hostId: string): string {
  return `bare-metal host ${hostId}`;
}
