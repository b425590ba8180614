/** What a machine would answer, as the mocks give it. */
import * as pulumi from "@pulumi/pulumi";
import type { Answer } from "./recorder.js";

/** A digest that looks like one. */
export const digest = `sha256:${"ab".repeat(32)}`;

/** Connection of a host, as its machine gives it. */
export const connection = {
  hostId: "0123456789abcdef",
  endpoint: "https://127.0.0.1:40443",
  certificateAuthority: "-----BEGIN CERTIFICATE-----\n",
  clientCertificateFile: "/keys/hosts/client.crt",
  clientKeyFile: "/keys/hosts/client.key",
  loopbackAddress: "10.0.2.2",
  publishedPorts: [{ port: 80, protocol: "TCP", address: "127.0.0.1:40080" }],
};

const outputs: Record<string, () => Record<string, unknown>> = {
  "palisade:index:Registry": () => ({
    server: "127.0.0.1:5000",
    username: "palisade",
    password: pulumi.secret("registry-password"),
    ca: "-----BEGIN CERTIFICATE-----\n",
    powerState: "running",
  }),
  "palisade:index:DebianImage": () => ({ digest, reference: `127.0.0.1:5000/web/nginx@${digest}`, inputsHash: "1" }),
  "palisade:index:PatchedImage": () => ({
    ...{ patchedDigest: digest, reference: `127.0.0.1:5000/web/nginx@${digest}`, databaseDigest: digest },
    ...{ fixableBefore: 7, fixableAfter: 0, remaining: [], scannedAt: "2026-01-01T00:00:00Z" },
    vexReference: `127.0.0.1:5000/web/nginx@${digest}`,
  }),
  "palisade:index:SealedImage": () => ({
    reference: `127.0.0.1:5000/web/nginx@${digest}`,
    sealDigest: digest,
    rootHashes: [],
  }),
  "palisade:index:HostImage": () => ({ imageDigest: digest, rootHash: "00", ipePolicy: "palisade", mode: "enforce" }),
  "palisade:index:StateDisk": () => ({ path: "/state/disk.raw" }),
  "palisade:index:VirtualMachine": () => ({
    hostId: connection.hostId,
    connection,
    accelerator: "tcg",
    serialLog: "/state/serial.log",
    bootSeconds: 60,
    integrity: { secureBoot: true },
    expectedIntegrity: { secureBoot: true },
    problems: [],
  }),
  "palisade:index:HostIntegrity": () => ({ observed: { secureBoot: true }, problems: [] }),
  "palisade:index:GroupDeployment": () => ({
    endpoints: connection.publishedPorts,
    address: "10.88.0.2",
    state: "Running",
    observedContainers: [],
  }),
};

export const answer: Answer = ({ type }) => outputs[type]?.() ?? {};
