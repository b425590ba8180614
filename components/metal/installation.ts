/** The steps of an installation, each a command of `@pulumi/command`, in the order in which they run. */
import { existsSync } from "node:fs";
import path from "node:path";
import { local, remote, type types } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { decode, object } from "../../shared/decode.js";
import { packageRoot } from "../../shared/directories.js";
import { HostIntegrity } from "../../sdk/hostIntegrity.js";
import type * as outputs from "../../sdk/types/output.js";
import type { ChildOptions } from "../internal/component.js";
import { type Disk, type DiskRule, type Inventory, inventorySchema, selectDisk } from "./disks.js";
import { imageArchive } from "./image-archive.js";
import { enrollScript, firmwareScript, inventoryScript, requestScript, workFolder, writeScript } from "./scripts.js";

/** What all steps of one installation share. */
export interface InstallationContext {
  /** Who is installed, as messages name it. */
  subject: string;
  /** The rescue system. */
  connection: types.input.remote.ConnectionArgs;
  /** Values whose change runs every step anew. */
  triggers: pulumi.Input<string>[];
  /** Folder made by `palisade keys init`. */
  keysDirectory: string;
  /** Name of a step's resource. */
  nameOf: (role: string) => string;
  optionsOf: (options: ChildOptions) => pulumi.CustomResourceOptions;
}

/** What is needed to write an image to a disk. */
export interface ImageToWrite {
  digest: pulumi.Input<string>;
  /** Default: the image of this machine's store. */
  file: string | undefined;
  disk: pulumi.Output<Disk>;
  /** Whether the user named the disk as one whose content may be lost. */
  mayOverwrite: boolean;
}

/** What the last step prints. */
type Reported = outputs.IntegrityFacts & { expectedIntegrity?: outputs.ExpectedIntegrity };

export class Installation {
  private readonly connection: types.input.remote.ConnectionArgs;

  constructor(private readonly context: InstallationContext) {
    this.connection = { dialErrorLimit: 20, perDialTimeout: 15, port: 22, user: "root", ...context.connection };
  }

  /** Lists the machine's disks; `disk` is the one that the rule chooses. */
  chooseDisk(
    rule: DiskRule,
    allowOverwrite: string | undefined,
  ): { inventory: remote.Command; disk: pulumi.Output<Disk> } {
    const inventory = this.onMachine("inventory", { create: inventoryScript, logging: "stderr" });
    const disk = inventory.stdout.apply((text) =>
      selectDisk(
        this.context.subject,
        decode(inventorySchema, text, "what the rescue system prints of its disks") as unknown as Inventory,
        rule,
        allowOverwrite,
      ),
    );
    return { inventory, disk };
  }

  /** Sends the agent and the image, and writes the image. Nothing is sent to a machine whose disk was refused. */
  writeImage(
    { digest, file, disk, mayOverwrite }: ImageToWrite,
    inventory: remote.Command,
  ): { agent: remote.CopyToRemote; write: remote.Command } {
    const archive = pulumi.all([digest, disk]).apply(([known]) => imageArchive(known, file));
    const agent = this.copy(
      "agent",
      disk.apply(() => agentFile()),
      `${workFolder}/agent`,
      [inventory],
    );
    const image = this.copy("image", archive.file, `${workFolder}/image.gz`, [inventory]);
    const create = pulumi
      .all([disk, digest, archive])
      .apply(([{ path: device, serial, wwn }, known, { size }]) =>
        writeScript({ device, serial, wwn, mayOverwrite, sha256: known.replace("sha256:", ""), size }),
      );
    return { agent, write: this.onMachine("write", { create }, [image]) };
  }

  /** Puts the operator's Secure Boot keys into the firmware. */
  installFirmwareKeys(write: remote.Command): remote.Command {
    const variables = this.here("keys", { create: this.palisade("firmware-keys") });
    return this.onMachine("firmware", { create: firmwareScript, stdin: variables.stdout }, [write]);
  }

  /** Gives the host its identity, by a certificate for its own key. The result is the host's id. */
  enroll(
    device: pulumi.Output<string>,
    { agent, write }: { agent: remote.CopyToRemote; write: remote.Command },
    firmware: remote.Command,
  ): pulumi.Output<string> {
    const request = this.onMachine("request", { create: device.apply(requestScript), logging: "stderr" }, [
      write,
      agent,
    ]);
    const answer = this.here("certificate", { create: this.palisade("sign"), stdin: request.stdout });
    const enrolled = this.onMachine("enroll", { create: device.apply(enrollScript), stdin: answer.stdout }, [firmware]);
    return enrolled.stdout.apply((text) => text.trim().split("\n").at(-1)!);
  }

  /**
   * Restarts the machine and waits for the host, for so many seconds. `integrity` is what the host reports then; the
   * step fails when that is not what its image says, `expectedIntegrity`.
   */
  start(
    connection: pulumi.Output<outputs.HostConnection>,
    seconds: number,
    { digest, file }: Pick<ImageToWrite, "digest" | "file">,
  ): {
    start: local.Command;
    integrity: pulumi.Output<outputs.IntegrityFacts>;
    expectedIntegrity: pulumi.Output<outputs.ExpectedIntegrity | undefined>;
  } {
    const start = this.here("start", {
      create: this.palisade("start"),
      stdin: pulumi.secret(
        pulumi.all([this.connection, connection, digest]).apply(([ssh, host, image]) =>
          JSON.stringify({
            ssh,
            connection: host,
            seconds,
            image,
            ...(file === undefined ? {} : { imageFile: file }),
          }),
        ),
      ),
    });
    // The command's output is secret because its input is. It holds the host's facts, and no credentials.
    const reported = pulumi
      .unsecret(start.stdout)
      .apply((text) => decode(object({}), text, "integrity facts of the host") as unknown as Reported);
    return {
      start,
      integrity: reported.apply(({ expectedIntegrity: _expected, ...facts }) => facts),
      // A host that an earlier version started has none.
      expectedIntegrity: reported.apply(({ expectedIntegrity }) => expectedIntegrity),
    };
  }

  /**
   * Compares the host with its image at each refresh and update. Of a host that an earlier version started, nothing is
   * expected.
   */
  compare(
    host: pulumi.Output<outputs.HostConnection>,
    expected: pulumi.Output<outputs.ExpectedIntegrity | undefined>,
    start: local.Command,
  ): HostIntegrity {
    return new HostIntegrity(
      this.context.nameOf("integrity"),
      { host, expected: expected.apply((facts) => facts ?? {}) },
      this.context.optionsOf({ dependsOn: [start] }),
    );
  }

  /** A command in the rescue system. */
  private onMachine(
    role: string,
    step: Pick<remote.CommandArgs, "create" | "stdin" | "logging">,
    dependsOn: pulumi.Resource[] = [],
  ): remote.Command {
    return new remote.Command(
      this.context.nameOf(role),
      { connection: this.connection, triggers: this.context.triggers, addPreviousOutputInEnv: false, ...step },
      this.options(["connection", "create", "stdin", "logging"], dependsOn),
    );
  }

  /** A command on the machine that runs Pulumi. */
  private here(role: string, step: Pick<local.CommandArgs, "create" | "stdin">): local.Command {
    return new local.Command(
      this.context.nameOf(role),
      { triggers: this.context.triggers, addPreviousOutputInEnv: false, logging: "stderr", ...step },
      this.options(["create", "stdin", "logging"]),
    );
  }

  /** A file that is sent to the rescue system. */
  private copy(
    role: string,
    source: pulumi.Input<string>,
    remotePath: string,
    dependsOn: pulumi.Resource[],
  ): remote.CopyToRemote {
    return new remote.CopyToRemote(
      this.context.nameOf(role),
      {
        connection: this.connection,
        source: pulumi.output(source).apply((file) => new pulumi.asset.FileAsset(file)),
        remotePath,
        triggers: this.context.triggers,
      },
      this.options(["connection", "source"], dependsOn),
    );
  }

  /**
   * An installed host has no SSH: whatever changes later, in the arguments or in this package, must not run a step
   * again.
   */
  private options(ignoreChanges: string[], dependsOn: pulumi.Resource[] = []): pulumi.CustomResourceOptions {
    return this.context.optionsOf({ dependsOn, ignoreChanges });
  }

  /** A step of `palisade metal` as a command line. */
  private palisade(step: string): string {
    const program = path.join(packageRoot(), "bin/palisade");
    const words = [process.execPath, program, "metal", step, "--keys", this.context.keysDirectory];
    return words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  }
}

/** The agent for the machine: `build/host` in a clone, `dist/host` in the published package. */
function agentFile(): string {
  const candidates = ["build", "dist"].map((folder) => path.join(packageRoot(), folder, "host/palisade-agent"));
  const found = candidates.find((file) => existsSync(file));
  if (!found) throw new pulumi.RunError(`the agent is neither ${candidates.join(" nor ")}; run \`make host-binaries\``);
  return found;
}
