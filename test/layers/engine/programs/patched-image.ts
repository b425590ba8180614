/** An image that is patched and published into the channel `channel` with the keys in the folder `keys`. */
import path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { DebianImage, PatchedImage, Registry } from "../../../../components/index.js";

const config = new pulumi.Config();
const keys = path.join(config.require("keys"), "hosts");
const pair = (name: string) => ({
  certificateFile: path.join(keys, `${name}.crt`),
  keyFile: path.join(keys, `${name}.key`),
});

const { server, username, password, ca } = new Registry("registry");
const registry = { server, username, password, ca };
const original = new DebianImage("original", { registry, repository: "web", packages: ["nginx"] });
const patched = new PatchedImage("patched", {
  ...{ registry, repository: "web", digest: original.digest, channel: config.require("channel") },
  ...{ layerSigner: pair("ca"), sealSigner: pair("client"), imageSigner: pair("client") },
});

export const channelDigest = patched.channelDigest;
