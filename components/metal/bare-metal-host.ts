import { readFileSync } from "node:fs";
import path from "node:path";
import type { types } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { argumentNames } from "../internal/argument-names.js";
import { type ArgumentCheck, known, rules } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { defaultKeysDirectory, hostKeyFiles } from "../../shared/directories.js";
import { rememberHostResource } from "../internal/host-resource.js";
import type * as outputs from "../../sdk/types/output.js";
import { httpsUrl, urlProblem } from "../../shared/host-port.js";
import type { DiskRule } from "./disks.js";
import { Installation } from "./installation.js";

/** Arguments of {@link BareMetalHost}. */
export interface BareMetalHostArgs {
  /**
   * How the rescue system is reached over SSH, as root. Name its `hostKey`: what is sent there becomes the host's
   * identity.
   */
  connection: types.input.remote.ConnectionArgs;
  /**
   * Digest of the host image, `sha256:…`: the `imageDigest` of a `HostImage`. A change installs anew, from the rescue
   * system.
   */
  image: pulumi.Input<string>;
  /** The image itself. Default: that of this machine's store. */
  imageFile?: string;
  /** Which disk is written. All that is given has to fit, and exactly one disk may. A change installs anew. */
  disk: DiskRule;
  /** Serial number or WWN of a disk whose content may be lost. Default: a disk with a content of others is refused. */
  allowOverwrite?: string;
  /** `https://address:port` where the host's agent answers. Default: port 8443 of the rescue system's address. */
  endpoint?: string;
  /** Folder made by `palisade keys init`. Default: `keys` in the operator's home. */
  keysDirectory?: string;
  /** Seconds until the host has to answer after the reboot, 60 to 7200. Default: 900. */
  startSeconds?: number;
  /** Another number installs anew, with everything as it is given then: other credentials too. Default: 1. */
  installation?: number;
}

const hostArguments = argumentNames<BareMetalHostArgs>({
  connection: true,
  image: true,
  imageFile: true,
  disk: true,
  allowOverwrite: true,
  endpoint: true,
  keysDirectory: true,
  startSeconds: true,
  installation: true,
});

const diskArguments = argumentNames<DiskRule>({
  serial: true,
  wwn: true,
  model: true,
  minimumGiB: true,
  maximumGiB: true,
});

/**
 * A hardened, immutable container host on a machine of its own. **Experimental.** The machine runs any Linux rescue
 * system with an SSH server, started by UEFI whose Secure Boot is in setup mode; it ends as a host whose agent answers.
 * Every step is a command of `@pulumi/command` and can be interrupted; the next `pulumi up` goes on. What the host
 * reports of its integrity is compared with its image at the end, and at each refresh.
 *
 * Once installed, nothing connects to the machine by SSH again: there is none. Destroying leaves the host as it is.
 *
 * @throws ArgumentError in preview, with the path of each wrong field; during the installation, before anything is
 * written, with the machine's disks when the rule fits none or several, or a disk with a content of others.
 */
export class BareMetalHost extends Component {
  /** Identity of the host; stable over reboots. */
  public readonly hostId: pulumi.Output<string>;
  /** How the host's agent is reached: the `host` of a `ContainerGroup`. */
  public readonly connection: pulumi.Output<outputs.HostConnection>;
  /** Integrity as the host's kernel reported it when the installation was complete. */
  public readonly integrity: pulumi.Output<outputs.IntegrityFacts>;
  /** Path, in the rescue system, of the disk that was written. */
  public readonly device: pulumi.Output<string>;

  constructor(name: string, given: BareMetalHostArgs, opts?: pulumi.ComponentResourceOptions) {
    const args = Component.checked("BareMetalHost", name, given, checkArguments);
    super("BareMetalHost", name, {}, opts);

    const keysDirectory = path.resolve(args.keysDirectory ?? defaultKeysDirectory());
    const suffix = args.installation === undefined || args.installation === 1 ? "" : `-${args.installation}`;
    const installation = new Installation({
      subject: `BareMetalHost "${name}"`,
      connection: args.connection,
      triggers: [args.image, JSON.stringify(args.disk)],
      keysDirectory,
      nameOf: (role) => this.childName(role) + suffix,
      optionsOf: (options) => this.childOptions(options),
    });

    const { inventory, disk } = installation.chooseDisk(args.disk, args.allowOverwrite);
    this.device = disk.apply(({ path: device }) => device);
    const mayOverwrite = args.allowOverwrite !== undefined;
    const image = { digest: args.image, file: args.imageFile, disk, mayOverwrite };
    const written = installation.writeImage(image, inventory);
    const firmware = installation.installFirmwareKeys(written.write);
    this.hostId = installation.enroll(this.device, written, firmware);

    const endpoint = args.endpoint ?? pulumi.output(args.connection.host).apply((host) => httpsUrl(host, 8443));
    const connection = connectionOf(this.hostId, endpoint, keysDirectory);
    const { start, integrity, expectedIntegrity } = installation.start(connection, args.startSeconds ?? 900, image);
    this.integrity = integrity;
    const comparison = installation.compare(connection, expectedIntegrity, start);
    // Everything that uses the connection waits for the host, and for its being as its image says.
    this.connection = pulumi.all([connection, integrity, comparison.problems]).apply(([value]) => value);
    rememberHostResource(this.connection, start);
    this.registerOutputs({
      hostId: this.hostId,
      connection: this.connection,
      integrity: this.integrity,
      // `palisade status` compares with it what the host reports by then.
      expectedIntegrity,
      device: this.device,
    });
  }
}

function checkArguments(check: ArgumentCheck, args: BareMetalHostArgs): void {
  check.keys("", args, hostArguments);
  check.require("image", args.image);
  check.field("image", args.image, rules.digest);
  check.require("connection", args.connection);
  if (known(args.connection) !== undefined) {
    check.require("connection.host", args.connection.host);
    const host = known(args.connection.host);
    if (host !== undefined && args.endpoint === undefined && urlProblem(httpsUrl(host, 8443))) {
      const reason =
        "cannot be a URL's host: a name or an address, without a port and a zone; else give endpoint as well";
      check.add("connection.host", host, reason);
    }
    if (args.connection.proxy !== undefined) {
      check.add(
        "connection.proxy",
        undefined,
        "is not used in this version: the host itself has to be reached afterwards",
      );
    }
  }
  check.require("disk", args.disk);
  const { disk } = args;
  if (disk !== undefined) {
    check.keys("disk", disk, diskArguments);
    for (const field of ["serial", "wwn", "model"] as const) check.field(`disk.${field}`, disk[field], rules.text);
    for (const field of ["minimumGiB", "maximumGiB"] as const) {
      check.field(`disk.${field}`, disk[field], rules.integer(1, 1024 * 1024));
    }
    if (Object.values(disk).every((value) => value === undefined)) {
      check.add("disk", disk, "says nothing: give serial, wwn, model, minimumGiB or maximumGiB");
    }
  }
  check.field("allowOverwrite", args.allowOverwrite, rules.text);
  check.field("imageFile", args.imageFile, rules.text);
  check.field("keysDirectory", args.keysDirectory, rules.text);
  check.field("endpoint", args.endpoint, urlProblem);
  check.field("startSeconds", args.startSeconds, rules.integer(60, 7200));
  check.field("installation", args.installation, rules.integer(1, 1_000_000));
}

/** How the host's agent will be reached, once the host runs. */
function connectionOf(
  hostId: pulumi.Output<string>,
  endpoint: pulumi.Input<string>,
  keysDirectory: string,
): pulumi.Output<outputs.HostConnection> {
  const file = (name: string) => path.join(keysDirectory, name);
  return pulumi.all([hostId, endpoint]).apply(([id, url]) => ({
    hostId: id,
    endpoint: url,
    certificateAuthority: readFileSync(file(hostKeyFiles.certificateAuthority.certificateFile), "utf8").trim() + "\n",
    clientCertificateFile: file(hostKeyFiles.clientIdentity.certificateFile),
    clientKeyFile: file(hostKeyFiles.clientIdentity.keyFile),
    publishedPorts: [],
  }));
}
