/** The program of the bare-metal tests: one host on the machine that the configuration names. */
import * as pulumi from "@pulumi/pulumi";
import { BareMetalHost } from "../../../../components/metal/index.js";

const config = new pulumi.Config("test");

const host = new BareMetalHost("metal", {
  connection: {
    host: "127.0.0.1",
    port: config.requireNumber("sshPort"),
    privateKey: config.requireSecret("privateKey"),
    hostKey: config.require("hostKey"),
    // An emulated machine takes its time.
    dialErrorLimit: 100,
  },
  image: config.require("image"),
  disk: { serial: config.require("serial") },
  endpoint: `https://127.0.0.1:${config.require("agentPort")}`,
  keysDirectory: config.require("keys"),
});

export const hostId = host.hostId;
export const integrity = host.integrity;
export const device = host.device;
export const connection = host.connection;
