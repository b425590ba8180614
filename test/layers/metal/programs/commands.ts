/** The program of the plugin's test on the real engine: the npm package as it is, the drop-in behind it. */
import { local, remote } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";

const config = new pulumi.Config("test");

const connection = {
  host: "127.0.0.1",
  port: config.requireNumber("sshPort"),
  privateKey: config.requireSecret("privateKey"),
  hostKey: config.require("hostKey"),
};
const made = new local.Command("made", {
  create: "echo made >made.txt; cat made.txt",
  dir: config.require("folder"),
  assetPaths: ["made.*"],
  triggers: [config.require("trigger")],
});
const copied = new remote.CopyToRemote("copied", {
  connection,
  source: made.assets.apply((assets) => assets!["made.txt"]!),
  remotePath: "/tmp/made.txt",
  triggers: [config.require("trigger")],
});
const read = new remote.Command(
  "read",
  { connection, create: "cat /tmp/made.txt", delete: "rm -f /tmp/made.txt", triggers: [config.require("trigger")] },
  { dependsOn: copied },
);

export const there = read.stdout;
export const now = local.runOutput({ command: "echo now" }).stdout;
