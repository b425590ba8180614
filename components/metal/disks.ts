/**
 * Chooses the disk of a machine that becomes the host's, from what the rescue system reports, before anything is
 * written.
 */
import { ArgumentError, type Problem } from "../internal/arguments.js";
import * as v from "valibot";
import { object } from "../../shared/decode.js";

/** GUID of a disk's partition table that says: this disk is Palisade's, an installer may write it again. */
export const diskId = "9A1D5E0C-50A1-4D15-ADE0-70616C697361";

/** What identifies the disk. All that is given has to fit, and exactly one disk may. */
export interface DiskRule {
  /** Serial number. */
  serial?: string;
  /** World wide name, e.g. `0x5000c500a1b2c3d4` or `eui.…`. */
  wwn?: string;
  /** Model; the whole name, or its beginning with `*` behind it. */
  model?: string;
  /** Least size in GiB. */
  minimumGiB?: number;
  /** Greatest size in GiB. */
  maximumGiB?: number;
}

/** A device as `lsblk --json --bytes` reports it. */
export interface BlockDevice {
  path: string;
  type: string;
  size: number;
  ro: boolean;
  children?: BlockDevice[];
}

/** Which disk it is, and what is on it, read from the disk itself. */
export interface DiskContent {
  path: string;
  serial: string;
  wwn: string;
  model: string;
  /** Of file systems, partition tables, RAIDs …, separated by commas; empty for an empty disk. */
  signatures: string;
  /** Whether an installer wrote it, to the end or not. */
  isOurs: boolean;
}

/** What the inventory prints. */
export interface Inventory {
  setupMode: boolean;
  secureBoot: boolean;
  tpm: boolean;
  network: { name: string; address: string }[];
  contents: DiskContent[];
  disks: { blockdevices: BlockDevice[] };
}

const deviceSchema: v.GenericSchema = object({
  path: v.string(),
  type: v.string(),
  size: v.number(),
  ro: v.boolean(),
  children: v.optional(v.array(v.lazy(() => deviceSchema))),
});
export const inventorySchema = object({
  setupMode: v.boolean(),
  secureBoot: v.boolean(),
  tpm: v.boolean(),
  network: v.array(object({ name: v.string(), address: v.string() })),
  contents: v.array(object({ path: v.string(), serial: v.string(), wwn: v.string(), model: v.string() })),
  disks: object({ blockdevices: v.array(deviceSchema) }),
});

const gibibyte = 1024 ** 3;

/** Space for the system in front of the state partition, and the least for that. */
export const smallestDiskGiB = 8;

/** A disk that can be written, with all that is known of it. */
export type Disk = Pick<BlockDevice, "size" | "children"> & DiskContent;

function fits(disk: Disk, rule: DiskRule): boolean {
  const model = rule.model?.endsWith("*") ? disk.model.startsWith(rule.model.slice(0, -1)) : disk.model === rule.model;
  return (
    (rule.serial === undefined || disk.serial === rule.serial) &&
    (rule.wwn === undefined || disk.wwn === rule.wwn) &&
    (rule.model === undefined || model) &&
    (rule.minimumGiB === undefined || disk.size >= rule.minimumGiB * gibibyte) &&
    (rule.maximumGiB === undefined || disk.size <= rule.maximumGiB * gibibyte)
  );
}

/** What is on a disk that the installer did not write; undefined for an empty one and for its own. */
export function foreignContent(disk: Disk): string | undefined {
  if (disk.isOurs) return undefined;
  if (disk.children?.length) return `${disk.children.length} partitions`;
  return disk.signatures === "" ? undefined : disk.signatures;
}

function describe(disk: Disk): string {
  const name = [`serial=${disk.serial || "-"}`, `wwn=${disk.wwn || "-"}`, `model=${disk.model || "-"}`];
  const size = (disk.size / gibibyte).toFixed(1);
  return `${disk.path} ${name.join(" ")} ${size} GiB, ${foreignContent(disk) ?? "empty"}`;
}

/**
 * The one disk that a rule chooses.
 *
 * @param allowOverwrite serial number or WWN of a disk whose content may be lost
 * @throws ArgumentError with the list of disks when the rule fits none or several, or when the disk has a content of
 * others
 */
export function selectDisk(subject: string, inventory: Inventory, rule: DiskRule, allowOverwrite?: string): Disk {
  const disks = inventory.disks.blockdevices
    .filter(({ type, ro, size }) => type === "disk" && !ro && size > 0)
    .flatMap(({ path, size, children }) => {
      // What could not be read is no disk to write on.
      const content = inventory.contents.find((one) => one.path === path);
      return content ? [{ ...content, size, ...(children ? { children } : {}) }] : [];
    });
  const list = disks.map((disk) => `\n    ${describe(disk)}`).join("") || "\n    none";
  const refuse = (path: string, value: unknown, reason: string): never => {
    const problem: Problem = { path, value: JSON.stringify(value), reason: `${reason}; the machine's disks:${list}` };
    throw new ArgumentError(subject, [problem]);
  };
  const found = disks.filter((disk) => fits(disk, rule));
  const [disk] = found;
  if (!disk) return refuse("disk", rule, "no disk fits");
  if (found.length > 1) return refuse("disk", rule, `${found.length} disks fit: name one by serial or wwn`);
  if (disk.size < smallestDiskGiB * gibibyte) return refuse("disk", rule, `is smaller than ${smallestDiskGiB} GiB`);
  const content = foreignContent(disk);
  const isNamed = allowOverwrite !== undefined && [disk.serial, disk.wwn].includes(allowOverwrite);
  if (content && !isNamed) {
    return refuse(
      "disk",
      rule,
      `there is ${content} on it. If that may be lost, name its serial or wwn in allowOverwrite`,
    );
  }
  return disk;
}
