import path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { argumentNames } from "../internal/argument-names.js";
import { type ArgumentCheck, isGiven, isLate, known, rules } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { defaultKeysDirectory, hostKeyFiles } from "../../shared/directories.js";
import { withDefault } from "../group/inputs.js";
import { rememberHostResource } from "../internal/host-resource.js";
import { StateDisk } from "../../sdk/stateDisk.js";
import type * as inputs from "../../sdk/types/input.js";
import type * as outputs from "../../sdk/types/output.js";
import { VirtualMachine } from "../../sdk/virtualMachine.js";

/** Arguments of {@link NestedHost}. */
export interface NestedHostArgs {
  /** Digest of the host image, `sha256:…`: the `imageDigest` of a `HostImage`. A change replaces the machine. */
  image: pulumi.Input<string>;
  /** Where the machine runs. Default: `{ uri: "local" }`, QEMU on the machine that runs Pulumi; others are refused. */
  hypervisor?: pulumi.Input<inputs.HypervisorArgs>;
  /** Virtual CPUs, 1 to 64. Default: 2. A change restarts the machine. */
  cpus?: pulumi.Input<number>;
  /** Memory in MiB, at least 1024. Default: 2048. A change restarts the machine. */
  memoryMiB?: pulumi.Input<number>;
  /**
   * Size in GiB of the disk that keeps groups, images and identity, 1 to 65536. Default: 8. It can grow, not shrink.
   */
  stateDiskGiB?: pulumi.Input<number>;
  /** Refuse every deletion of the state disk until this is false again. Default: false. */
  protectState?: boolean;
  /** Ports of the host reachable on the hypervisor's machine. Default: none but the agent's. */
  publishedPorts?: pulumi.Input<pulumi.Input<inputs.PublishedPortArgs>[]>;
  /** CA that signs the host's certificate. Default: `hosts/ca.{crt,key}` of `keysDirectory`. */
  certificateAuthority?: pulumi.Input<inputs.KeyPairFilesArgs>;
  /** Certificate with which this program talks to the agent. Default: `hosts/client.{crt,key}` of `keysDirectory`. */
  clientIdentity?: pulumi.Input<inputs.KeyPairFilesArgs>;
  /** Folder made by `palisade keys init`. Default: `keys` in the operator's home. */
  keysDirectory?: pulumi.Input<string>;
  /** auto, kvm or tcg. Default: auto, which boots a probe guest to find out whether KVM works. */
  acceleration?: pulumi.Input<string>;
  /**
   * none or template. template: a host whose state disk is new does not boot, but resumes a template of its image and
   * size, which the first one makes; for tests, see `docs/testing.md`. Default: none.
   */
  snapshot?: pulumi.Input<string>;
  /** running or stopped. Default: running. */
  powerState?: pulumi.Input<string>;
  /** Delete the machine even when its agent cannot be reached. Default: false. */
  forceDestroy?: pulumi.Input<boolean>;
}

const hostArguments = argumentNames<NestedHostArgs>({
  image: true,
  hypervisor: true,
  cpus: true,
  memoryMiB: true,
  stateDiskGiB: true,
  protectState: true,
  publishedPorts: true,
  certificateAuthority: true,
  clientIdentity: true,
  keysDirectory: true,
  acceleration: true,
  snapshot: true,
  powerState: true,
  forceDestroy: true,
});

const publishedPortArguments = argumentNames<inputs.PublishedPortArgs>({
  port: true,
  protocol: true,
  hostAddress: true,
  hostPort: true,
});

/**
 * A hardened, immutable container host in a virtual machine: a {@link StateDisk} and a {@link VirtualMachine} that
 * boots a host image. It is ready when its agent says so. Groups are put on it through {@link connection}.
 *
 * A replacement deletes the old machine first, as both would use the same state disk.
 *
 * @throws ArgumentError in preview, with the path of each wrong field.
 */
export class NestedHost extends Component {
  /** Identity of the host; stable over reboots. */
  public readonly hostId: pulumi.Output<string>;
  /** How the host's agent is reached: the `host` of a `ContainerGroup`. */
  public readonly connection: pulumi.Output<outputs.HostConnection>;
  /** Integrity as the host's kernel reports it; absent when the machine is stopped. */
  public readonly integrity: pulumi.Output<outputs.IntegrityFacts | undefined>;
  /** What runs: kvm or tcg. */
  public readonly accelerator: pulumi.Output<string>;
  /** Observed: running or stopped. */
  public readonly powerState: pulumi.Output<string>;
  /** File with the serial console. */
  public readonly serialLog: pulumi.Output<string>;
  /** Seconds from the machine's last start to ready. */
  public readonly bootSeconds: pulumi.Output<number | undefined>;
  /** The disk that outlives the machine. */
  public readonly stateDisk: StateDisk;
  /** The machine. */
  public readonly machine: VirtualMachine;

  constructor(name: string, args: NestedHostArgs, opts?: pulumi.ComponentResourceOptions) {
    let checked!: ReturnType<typeof checkArguments>;
    const given = Component.checked("NestedHost", name, args, (check, all) => (checked = checkArguments(check, all)));
    super("NestedHost", name, {}, opts);

    this.stateDisk = new StateDisk(
      this.childName("state"),
      { hypervisor: checked.hypervisor, sizeGiB: checked.stateDiskGiB },
      // Only `true` is passed on: an explicit `false` would undo a protection that the component itself was given.
      this.childOptions(given.protectState ? { protect: true } : {}),
    );
    this.machine = new VirtualMachine(
      this.childName("machine"),
      {
        hypervisor: checked.hypervisor,
        imageDigest: checked.image,
        stateDiskId: this.stateDisk.id,
        cpus: checked.cpus,
        memoryMiB: checked.memoryMiB,
        publishedPorts: checked.publishedPorts,
        certificateAuthority: given.certificateAuthority ?? keyPair(given.keysDirectory, "certificateAuthority"),
        clientIdentity: given.clientIdentity ?? keyPair(given.keysDirectory, "clientIdentity"),
        acceleration: checked.acceleration,
        snapshot: checked.snapshot,
        powerState: checked.powerState,
        forceDestroy: checked.forceDestroy,
      },
      this.childOptions({ deleteBeforeReplace: true }),
    );

    this.hostId = this.machine.hostId;
    this.connection = this.machine.connection;
    this.integrity = this.machine.integrity;
    this.accelerator = this.machine.accelerator;
    this.powerState = this.machine.powerState;
    this.serialLog = this.machine.serialLog;
    this.bootSeconds = this.machine.bootSeconds;
    rememberHostResource(this.connection, this.machine);
    this.registerOutputs({
      hostId: this.hostId,
      connection: this.connection,
      integrity: this.integrity,
      accelerator: this.accelerator,
      powerState: this.powerState,
      serialLog: this.serialLog,
    });
  }
}

function checkArguments(check: ArgumentCheck, args: NestedHostArgs) {
  check.keys("", args, hostArguments);
  check.require("image", args.image);
  if (isGiven(args.protectState) && typeof args.protectState !== "boolean") {
    check.add("protectState", undefined, "must be true or false, known before the program runs");
  }
  for (const pair of ["certificateAuthority", "clientIdentity"] as const) {
    const files = known(args[pair]);
    if (!files) continue;
    for (const field of ["certificateFile", "keyFile"] as const) {
      check.require(`${pair}.${field}`, files[field]);
      check.field(`${pair}.${field}`, files[field], rules.text);
    }
  }
  if (isGiven(args.keysDirectory) && isGiven(args.certificateAuthority) && isGiven(args.clientIdentity)) {
    check.add(
      "keysDirectory",
      known(args.keysDirectory),
      "has no effect beside certificateAuthority and clientIdentity; leave one or the other out",
    );
  }
  check.field("keysDirectory", args.keysDirectory, rules.text);
  check.field("hypervisor.uri", known(args.hypervisor)?.uri as pulumi.Input<string> | undefined, (uri) =>
    uri === "local" ? undefined : "only 'local' can be used: QEMU on the machine that runs Pulumi",
  );
  checkPublishedPorts(check, args.publishedPorts);
  return {
    image: check.field("image", args.image, rules.digest) as pulumi.Input<string>,
    hypervisor: args.hypervisor,
    cpus: check.field("cpus", args.cpus, rules.integer(1, 64)),
    memoryMiB: check.field("memoryMiB", args.memoryMiB, rules.integer(1024, 1024 * 1024)),
    stateDiskGiB: check.field("stateDiskGiB", args.stateDiskGiB, rules.integer(1, 65536)),
    publishedPorts: args.publishedPorts,
    acceleration: check.field("acceleration", args.acceleration, rules.oneOf("auto", "kvm", "tcg")),
    snapshot: check.field("snapshot", args.snapshot, rules.oneOf("none", "template")),
    powerState: check.field("powerState", args.powerState, rules.oneOf("running", "stopped")),
    forceDestroy: check.field("forceDestroy", args.forceDestroy, rules.boolean),
  };
}

function checkPublishedPorts(check: ArgumentCheck, ports: NestedHostArgs["publishedPorts"]): void {
  const seen = new Map<string, number>();
  check.items("publishedPorts", ports, (published, at, index) => {
    if (!check.object(at, published)) return;
    check.keys(at, published, publishedPortArguments);
    check.require(`${at}.port`, published.port);
    check.field(`${at}.port`, published.port, rules.integer(1, 65535));
    check.field(
      `${at}.hostPort`,
      published.hostPort as pulumi.Input<number> | undefined,
      (port) =>
        rules.integer(0, 65535)(port) && "must be a whole number from 0 to 65535; 0 chooses a free port and keeps it",
    );
    check.field(`${at}.protocol`, published.protocol as pulumi.Input<string> | undefined, rules.oneOf("TCP", "UDP"));
    const port = known(published.port);
    const protocol = known(published.protocol) ?? "TCP";
    if (port === undefined || isLate(published.protocol)) return;
    const other = seen.get(`${port}/${protocol}`);
    if (other !== undefined) check.add(`${at}.port`, port, `is published already by publishedPorts[${other}]`);
    seen.set(`${port}/${protocol}`, index);
  });
}

/** The files of one role in the keys folder. Only their paths enter the state. */
function keyPair(
  keysDirectory: pulumi.Input<string> | undefined,
  role: keyof typeof hostKeyFiles,
): pulumi.Input<inputs.KeyPairFilesArgs> {
  return pulumi.output(withDefault(keysDirectory, defaultKeysDirectory())).apply((directory) => ({
    certificateFile: path.resolve(directory, hostKeyFiles[role].certificateFile),
    keyFile: path.resolve(directory, hostKeyFiles[role].keyFile),
  }));
}
