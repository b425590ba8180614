import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { local, remote, types } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { decode, object } from "../../shared/decode.js";
import { type ArgumentCheck, known, rules } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { defaultKeysDirectory, hostKeyFiles, packageRoot } from "../../shared/directories.js";
import { rememberHostResource } from "../internal/host-resource.js";
import type * as outputs from "../../sdk/types/output.js";
import { httpsUrl, urlProblem } from "../../shared/host-port.js";
import { selectDisk, type DiskRule, type Inventory, inventorySchema } from "./disks.js";
import { imageArchive } from "./image-archive.js";
import { enrollScript, firmwareScript, inventoryScript, requestScript, workFolder, writeScript } from "./scripts.js";

/** Arguments of {@link BareMetalHost}. */
export interface BareMetalHostArgs {
  /** How the rescue system is reached over SSH, as root. Name its `hostKey`: what is sent there becomes the host's identity. */
  connection: types.input.remote.ConnectionArgs;
  /** Digest of the host image, `sha256:…`: the `imageDigest` of a `HostImage`. A change installs anew, from the rescue system. */
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

const argumentNames = [
  "connection",
  "image",
  "imageFile",
  "disk",
  "allowOverwrite",
  "endpoint",
  "keysDirectory",
  "startSeconds",
  "installation",
] as const satisfies readonly (keyof BareMetalHostArgs)[];

/**
 * A hardened, immutable container host on a machine of its own. **Experimental.** The machine runs any Linux rescue system with an SSH
 * server, started by UEFI whose Secure Boot is in setup mode; it ends as a host whose agent answers. Every step is a command of
 * `@pulumi/command` and can be interrupted; the next `pulumi up` goes on.
 *
 * Once installed, nothing connects to the machine by SSH again: there is none. Destroying leaves the host as it is.
 *
 * @throws ArgumentError in preview, with the path of each wrong field; during the installation, before anything is written, with the
 * machine's disks when the rule fits none or several, or a disk with a content of others.
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

    const ssh = { dialErrorLimit: 20, perDialTimeout: 15, port: 22, user: "root", ...args.connection };
    const keys = path.resolve(args.keysDirectory ?? defaultKeysDirectory());
    const suffix = args.installation === undefined || args.installation === 1 ? "" : `-${args.installation}`;
    const triggers = [args.image, JSON.stringify(args.disk)];

    // An installed host has no SSH: whatever changes later, in these arguments or in this package, must not run a step again.
    const options = (step: string[], dependsOn: pulumi.Resource[] = []): pulumi.CustomResourceOptions =>
      this.childOptions({ dependsOn, ignoreChanges: step });
    const onMachine = (
      role: string,
      step: Pick<remote.CommandArgs, "create" | "stdin" | "logging">,
      dependsOn: pulumi.Resource[] = [],
    ) =>
      new remote.Command(
        this.childName(role) + suffix,
        { connection: ssh, triggers, addPreviousOutputInEnv: false, ...step },
        options(["connection", "create", "stdin", "logging"], dependsOn),
      );
    const here = (role: string, step: Pick<local.CommandArgs, "create" | "stdin">, dependsOn: pulumi.Resource[] = []) =>
      new local.Command(
        this.childName(role) + suffix,
        { triggers, addPreviousOutputInEnv: false, logging: "stderr", ...step },
        options(["create", "stdin", "logging"], dependsOn),
      );
    const copy = (role: string, source: pulumi.Input<string>, remotePath: string, dependsOn: pulumi.Resource[]) =>
      new remote.CopyToRemote(
        this.childName(role) + suffix,
        {
          connection: ssh,
          source: pulumi.output(source).apply((file) => new pulumi.asset.FileAsset(file)),
          remotePath,
          triggers,
        },
        options(["connection", "source"], dependsOn),
      );

    const inventory = onMachine("inventory", { create: inventoryScript, logging: "stderr" });
    const disk = inventory.stdout.apply((text) =>
      selectDisk(
        `BareMetalHost "${name}"`,
        decode(inventorySchema, text, "what the rescue system prints of its disks") as unknown as Inventory,
        args.disk,
        args.allowOverwrite,
      ),
    );
    this.device = disk.apply(({ path: device }) => device);

    // Nothing is sent to a machine whose disk was refused.
    const archive = pulumi.all([args.image, disk]).apply(([digest]) => imageArchive(digest, args.imageFile));
    const agent = copy(
      "agent",
      disk.apply(() => agentFile()),
      `${workFolder}/agent`,
      [inventory],
    );
    const image = copy("image", archive.file, `${workFolder}/image.gz`, [inventory]);

    const write = onMachine(
      "write",
      {
        create: pulumi.all([disk, args.image, archive]).apply(([{ path: device, serial, wwn }, digest, { size }]) =>
          writeScript({
            device,
            serial,
            wwn,
            mayOverwrite: args.allowOverwrite !== undefined,
            sha256: digest.replace("sha256:", ""),
            size,
          }),
        ),
      },
      [image],
    );
    const variables = here("keys", { create: palisade("firmware-keys", keys) });
    const firmware = onMachine("firmware", { create: firmwareScript, stdin: variables.stdout }, [write]);
    const request = onMachine("request", { create: this.device.apply(requestScript), logging: "stderr" }, [
      write,
      agent,
    ]);
    const answer = here("certificate", { create: palisade("sign", keys), stdin: request.stdout });
    const enrolled = onMachine("enroll", { create: this.device.apply(enrollScript), stdin: answer.stdout }, [firmware]);

    this.hostId = enrolled.stdout.apply((text) => text.trim().split("\n").at(-1)!);
    const file = (name: string) => path.join(keys, name);
    const endpoint = args.endpoint ?? pulumi.output(args.connection.host).apply((host) => httpsUrl(host, 8443));
    const connection = pulumi.all([this.hostId, endpoint]).apply(([hostId, at]) => ({
      hostId,
      endpoint: at,
      certificateAuthority: readFileSync(file(hostKeyFiles.certificateAuthority.certificateFile), "utf8").trim() + "\n",
      clientCertificateFile: file(hostKeyFiles.clientIdentity.certificateFile),
      clientKeyFile: file(hostKeyFiles.clientIdentity.keyFile),
      publishedPorts: [],
    }));
    const start = here("start", {
      create: palisade("start", keys),
      stdin: pulumi.secret(
        pulumi
          .all([ssh, connection])
          .apply(([endpoint, host]) =>
            JSON.stringify({ ssh: endpoint, connection: host, seconds: args.startSeconds ?? 900 }),
          ),
      ),
    });
    // The command's output is secret, as its input is; what it says are the host's facts, and no credentials.
    const facts = pulumi.unsecret(start.stdout);
    this.integrity = facts.apply(
      (text) => decode(object({}), text, "integrity facts of the host") as unknown as outputs.IntegrityFacts,
    );
    // Whoever uses the connection waits for the host.
    this.connection = pulumi.all([connection, facts]).apply(([value]) => value as outputs.HostConnection);
    rememberHostResource(this.connection, start);
    this.registerOutputs({
      hostId: this.hostId,
      connection: this.connection,
      integrity: this.integrity,
      device: this.device,
    });
  }
}

function checkArguments(check: ArgumentCheck, args: BareMetalHostArgs): void {
  check.keys("", args, argumentNames);
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
    check.keys("disk", disk, ["serial", "wwn", "model", "minimumGiB", "maximumGiB"]);
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

/** The agent for the machine: `build/host` in a clone, `dist/host` in the published package. */
function agentFile(): string {
  const candidates = ["build", "dist"].map((folder) => path.join(packageRoot(), folder, "host/palisade-agent"));
  const found = candidates.find((file) => existsSync(file));
  if (!found) throw new pulumi.RunError(`the agent is neither ${candidates.join(" nor ")}; run \`make host-binaries\``);
  return found;
}

/** A step of `palisade metal` as a command line. */
function palisade(step: string, keys: string): string {
  const words = [process.execPath, path.join(packageRoot(), "bin/palisade"), "metal", step, "--keys", keys];
  return words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
}
