/** QEMU's arguments for a host. Paths of the machine's own files are relative to its folder, where QEMU runs. */
import { createHash } from "node:crypto";
import type { PublishedPort } from "../../../backends/index.js";
import { machineArguments, type Accelerator } from "./accelerator.js";
import { forwardRule, networkId } from "./forwards.js";
import { tpmSocket } from "./tpm.js";

/** Files in the machine's folder. */
export const machineFiles = {
  firmwareVariables: "OVMF_VARS.fd",
  monitor: "qmp.sock",
  enrollment: "enrollment.sock",
  serialLog: "serial.log",
  qemuLog: "qemu.log",
  template: "template.sock",
  incoming: "incoming.sock",
} as const;

/** Block node of the state disk, for QMP. */
export const stateDiskNode = "state";

/** Id of the port on which a template waits and is released (template.proto), for QMP. */
export const templatePort = "template";

/** Memory in a file: kept by a template, mapped copy-on-write by its clones. */
export interface SnapshotMemory {
  file: string;
  /** `keep` writes to the file; `clone` never does, and waits for the state of the devices. */
  use: "keep" | "clone";
}

export interface MachineDefinition {
  id: string;
  /** UUID of this start of the machine; the guest's random number generator begins anew where it changes (vmgenid). */
  generationId: string;
  accelerator: Accelerator;
  cpus: number;
  memoryMiB: number;
  /** OVMF built for Secure Boot, read-only and shared. */
  firmware: string;
  /** The image's disk.raw, read-only and shared by all machines of the image. */
  imageDisk: string;
  stateDisk: string;
  forwards: PublishedPort[];
  snapshot?: SnapshotMemory;
}

/**
 * A stable address of the locally administered range QEMU uses; each machine has its own network, so it needs no more.
 */
export function macAddress(id: string): string {
  const hash = createHash("sha256").update(id).digest("hex");
  return `52:54:00:${hash.slice(0, 2)}:${hash.slice(2, 4)}:${hash.slice(4, 6)}`;
}

/** QEMU's option syntax doubles commas within values. */
const escape = (value: string) => value.replaceAll(",", ",,");

export function commandLine(machine: MachineDefinition): string[] {
  const forwards = machine.forwards.map((port) => `,hostfwd=${forwardRule(port)}`).join("");
  const keeps = machine.snapshot?.use === "keep";
  return [
    ...["-name", machine.id, ...machineArguments(machine.accelerator)],
    ...["-smp", String(machine.cpus), "-m", String(machine.memoryMiB), "-rtc", "base=utc"],
    // A template hands its state to a program; nothing but the host image has ever run in it.
    ...["-sandbox", `on,obsolete=deny,elevateprivileges=deny,spawn=${keeps ? "allow" : "deny"},resourcecontrol=deny`],

    // Secure Boot needs flash that only system management mode may write, and no way around it by resuming from S3.
    ...["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"],
    ...["-drive", `if=pflash,unit=0,format=raw,readonly=on,file=${escape(machine.firmware)}`],
    ...["-drive", `if=pflash,unit=1,format=raw,file=${machineFiles.firmwareVariables}`],

    ...["-chardev", `socket,id=tpm,path=${tpmSocket}`, "-tpmdev", "emulator,id=tpm0,chardev=tpm"],
    ...["-device", "tpm-crb,tpmdev=tpm0"],

    ...["-blockdev", blockNode("image", "raw", machine.imageDisk, "read-only=on,")],
    ...["-device", "virtio-blk-pci,drive=image,serial=palisade-image,bootindex=1"],
    ...["-blockdev", blockNode(stateDiskNode, "qcow2", machine.stateDisk, "discard=unmap,")],
    ...["-device", "virtio-blk-pci,drive=state,serial=palisade-state"],

    ...["-netdev", `user,id=${networkId}${forwards}`],
    ...["-device", `virtio-net-pci,netdev=${networkId},mac=${macAddress(machine.id)},romfile=`],
    ...["-device", "virtio-rng-pci", "-device", `vmgenid,guid=${machine.generationId}`],

    ...["-chardev", `file,id=console,path=${machineFiles.serialLog},append=on`, "-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci"],
    ...["-chardev", `socket,id=enrollment,path=${machineFiles.enrollment},server=on,wait=off`],
    ...["-device", "virtserialport,chardev=enrollment,name=palisade.enrollment"],
    ...["-chardev", `socket,id=monitor,path=${machineFiles.monitor},server=on,wait=off`],
    ...["-mon", "chardev=monitor,mode=control"],
    ...(machine.snapshot ? snapshotArguments(machine.memoryMiB, machine.snapshot) : []),
  ];
}

/** Template and clone have the same devices; the port's number is what the guest looks for. */
function snapshotArguments(memoryMiB: number, { file, use }: SnapshotMemory): string[] {
  const share = use === "keep" ? "on" : "off";
  return [
    ...["-object", `memory-backend-file,id=memory,size=${memoryMiB}M,mem-path=${escape(file)},share=${share}`],
    ...["-machine", "memory-backend=memory"],
    ...["-chardev", `socket,id=${templatePort},path=${machineFiles.template},server=on,wait=off`],
    ...["-device", `virtserialport,id=${templatePort},nr=30,chardev=${templatePort},name=palisade.template`],
    ...(use === "clone" ? ["-incoming", "defer"] : []),
  ];
}

function blockNode(name: string, driver: string, file: string, options: string): string {
  return `node-name=${name},driver=${driver},${options}file.driver=file,file.filename=${escape(file)}`;
}
