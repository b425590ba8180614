/** State disks: qcow2 files that outlive the machines they are attached to. */
import { rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Operation, StateDiskObserved, StateDiskSpec } from "../../backends/index.js";
import { isAbsent, syncDirectory } from "../../system/atomic-file.js";
import { idFor, processOf } from "../../system/marker.js";
import { isAlive } from "../../../shared/process-identity.js";
import { within } from "../../system/time.js";
import { requirePrograms } from "../../system/programs.js";
import type { HypervisorMarkers, StateDiskMarker } from "./markers.js";
import { machineFiles, stateDiskNode } from "./qemu/command-line.js";
import { createDisk, diskSizeGiB, resizeDisk } from "./qemu/disk-image.js";
import { Qmp } from "./qemu/qmp.js";

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

export class StateDisks {
  constructor(private readonly markers: HypervisorMarkers) {}

  async create(op: Operation, spec: StateDiskSpec): Promise<StateDiskObserved> {
    await requirePrograms("a state disk", ["qemu-img"]);
    const { disks } = this.markers;
    const id = idFor(disks.prefix, op.owner);
    return within(op, id, (signal) =>
      disks.locked(id, signal, async () => {
        const marker = await disks.adoptOrCreate(op.owner, spec, { created: false });
        await op.checkpoint("marker-written");
        const path = this.markers.diskFile(id);
        if (!(await exists(path))) {
          op.status(`making a disk of ${spec.sizeGiB} GiB`);
          await rm(`${path}.new`, { force: true });
          await createDisk(`${path}.new`, spec.sizeGiB, signal);
          await rename(`${path}.new`, path);
          await syncDirectory(disks.folder(id));
          marker.details = { created: true };
        }
        marker.details.created = true;
        await disks.write(marker);
        await op.checkpoint("disk-created");
        return this.grow(marker, spec.sizeGiB, signal);
      }),
    );
  }

  async read(id: string): Promise<StateDiskObserved | undefined> {
    const marker = await this.markers.disks.read(id);
    const path = this.markers.diskFile(id);
    // Without its file the disk does not exist any more: only its content made it this disk.
    if (!marker || !(await exists(path))) return undefined;
    const user = await this.markers.userOfDisk(id);
    return { id, path, sizeGiB: await diskSizeGiB(path), ...(user ? { attachedTo: user.id } : {}) };
  }

  async resize(op: Operation, id: string, sizeGiB: number): Promise<StateDiskObserved> {
    return within(op, id, (signal) =>
      this.markers.disks.locked(id, signal, async () =>
        this.grow(await this.markers.disks.existing(id), sizeGiB, signal),
      ),
    );
  }

  async delete(op: Operation, id: string): Promise<void> {
    await within(op, id, (signal) =>
      this.markers.disks.locked(id, signal, async () => {
        const user = await this.markers.userOfDisk(id);
        if (user && (await isAlive(processOf(user, "qemu")))) {
          throw new Error(`${id}: the disk is attached to the running machine ${user.id}; delete or stop that first`);
        }
        await this.markers.disks.remove(id);
      }),
    );
  }

  /** Grows the disk, through QEMU when a machine runs on it. The caller holds the disk's lock. */
  private async grow(marker: StateDiskMarker, sizeGiB: number, signal: AbortSignal): Promise<StateDiskObserved> {
    const path = this.markers.diskFile(marker.id);
    const size = await diskSizeGiB(path);
    if (sizeGiB < size) {
      throw new Error(`sizeGiB: ${sizeGiB} is less than the disk has (${size}); a disk can grow, not shrink`);
    }
    if (sizeGiB > size) {
      const user = await this.markers.userOfDisk(marker.id);
      if (user && (await isAlive(processOf(user, "qemu")))) {
        const monitor = join(this.markers.machines.folder(user.id), machineFiles.monitor);
        const bytes = sizeGiB * 1024 ** 3;
        await Qmp.session(monitor, (qmp) => qmp.execute("block_resize", { "node-name": stateDiskNode, size: bytes }));
      } else {
        await resizeDisk(path, sizeGiB, signal);
      }
    }
    if (marker.spec.sizeGiB !== sizeGiB) {
      marker.spec = { sizeGiB };
      await this.markers.disks.write(marker);
    }
    return (await this.read(marker.id))!;
  }
}
