/**
 * `palisade metal`: the steps of an installation on bare metal that need the operator's keys. `BareMetalHost` runs
 * them.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { text } from "node:stream/consumers";
import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { EnrollmentRequestSchema, EnrollmentResponseSchema } from "../hosts/api/gen/palisade/agent/v1/enrollment_pb.js";
import { defaultKeysDirectory, defaultStateDirectory, hostKeyFiles } from "../shared/directories.js";
import path from "node:path";
import {
  describeDifference,
  factsOf,
  integrityDifferences,
  noCheckpoint,
  type ExpectedIntegrity,
  type IntegrityFacts,
  type Operation,
} from "../provider/backends/index.js";
import { readAuthority } from "../provider/local/certificates/authority.js";
import { issueHostCertificate } from "../provider/local/certificates/host-identity.js";
import { remoteShell } from "../command-plugin/remote-command.js";
import type { Connection as SshConnection } from "../command-plugin/ssh.js";
import { authenticatedVariables } from "../provider/local/firmware/authenticated-variables.js";
import { describe, expectedIntegrity, imageDirectory } from "../provider/local/host-images/store.js";
import { IdentityRecords } from "../provider/local/hypervisor/identity-records.js";
import { HypervisorMarkers } from "../provider/local/hypervisor/markers.js";
import { withAgent } from "./agent.js";
import { type OutputOptions, writeDocument } from "./output.js";
import type { Connection } from "./stack-state.js";

/** Options of every step. */
export interface MetalOptions {
  /** Default: the folder in the operator's home. */
  keys?: string;
}

/** Lines of name, GUID, where the content begins, and base64. JSON: `{ variables }` with the same. */
export async function firmwareKeys({ keys, output }: MetalOptions & OutputOptions): Promise<number> {
  const variables = await authenticatedVariables(keys ?? defaultKeysDirectory());
  const shown = variables.map(({ data, ...variable }) => ({ ...variable, data: data.toString("base64") }));
  if (output === "json") writeDocument({ variables: shown });
  else
    for (const { name, guid, contentOffset, data } of shown)
      process.stdout.write(`${name} ${guid} ${contentOffset} ${data}\n`);
  return 0;
}

/**
 * An EnrollmentRequest on standard input; prints the EnrollmentResponse. An id that another host on this machine or on
 * bare metal has is refused.
 */
export async function sign({ keys = defaultKeysDirectory() }: MetalOptions): Promise<number> {
  const request = await fromInput("EnrollmentRequest", (input) =>
    fromJsonString(EnrollmentRequestSchema, input, { ignoreUnknownFields: true }),
  );
  for (const field of ["hostId", "certificateRequest"] as const) {
    if (request[field] === "") throw new Error(`standard input: ${field}: is missing from the EnrollmentRequest`);
  }
  const files = hostKeyFiles.certificateAuthority;
  const authority = await readAuthority({
    certificateFile: path.join(keys, files.certificateFile),
    keyFile: path.join(keys, files.keyFile),
  });
  const records = new IdentityRecords(new HypervisorMarkers(defaultStateDirectory()));
  const response = create(EnrollmentResponseSchema, {
    certificateChain: await issueHostCertificate(authority, request, records.ofNewMetalHost(request.hostId)),
    certificateAuthority: authority.certificate,
    revokedSerialNumbers: authority.revoked,
    signerTime: timestampNow(),
  });
  process.stdout.write(toJsonString(EnrollmentResponseSchema, response));
  return 0;
}

/**
 * A StartRequest on standard input; prints the integrity facts of the host that then runs, with what its image says of
 * them as `expectedIntegrity`.
 *
 * @throws Error when the host differs from its image, by the name of each fact
 */
export async function start(): Promise<number> {
  const request = await fromInput("StartRequest", readStartRequest);
  const expected = await expectedOf(request);
  const facts = await startHost(request);
  refuseDifferences(request.connection.hostId, expected, facts);
  process.stdout.write(JSON.stringify({ ...facts, ...(expected ? { expectedIntegrity: expected } : {}) }));
  return 0;
}

/** What the description of the installed image says; undefined, with a warning, when there is no description of it. */
async function expectedOf({ image, imageFile }: StartRequest): Promise<ExpectedIntegrity | undefined> {
  // Requests of earlier versions name no image.
  if (image === undefined) return undefined;
  const folders = [imageDirectory(defaultStateDirectory(), image)];
  if (imageFile !== undefined) folders.push(path.dirname(imageFile));
  for (const folder of folders) {
    const description = await describe(folder);
    if (description?.digest === image) return expectedIntegrity(description);
  }
  process.stderr.write(
    `what the host reports is not compared with its image: there is no image.json of ${image} in ${folders.join(" and ")}\n`,
  );
  return undefined;
}

/** @throws Error when the host differs from its image, by the name of each fact */
export function refuseDifferences(
  hostId: string,
  expected: ExpectedIntegrity | undefined,
  facts: IntegrityFacts,
): void {
  const differences = integrityDifferences(expected, facts);
  if (differences.length === 0) return;
  throw new Error(
    `host ${hostId} is not as its image says: ${differences.map(describeDifference).join("; ")}. Something else than this ` +
      "image was started: look at the machine's boot order, start the rescue system, and give `installation` another number",
  );
}

async function fromInput<T>(name: string, read: (input: string) => T): Promise<T> {
  const input = await text(process.stdin);
  try {
    return read(input);
  } catch (error) {
    throw new Error(`standard input: expected the JSON of a ${name}: ${(error as Error).message}`, { cause: error });
  }
}

function readStartRequest(input: string): StartRequest {
  const request = JSON.parse(input) as Partial<StartRequest> | null;
  const isRecord = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value);
  const requireText = (path: string, value: unknown) => {
    if (typeof value !== "string" || value === "") throw new Error(`${path}: a text is expected`);
  };
  if (!isRecord(request)) throw new Error("an object is expected");
  const { ssh, connection, seconds } = request!;
  if (!isRecord(ssh)) throw new Error("ssh: an object is expected");
  requireText("ssh.host", ssh!.host);
  if (!isRecord(connection)) throw new Error("connection: an object is expected");
  for (const field of [
    "hostId",
    "endpoint",
    "certificateAuthority",
    "clientCertificateFile",
    "clientKeyFile",
  ] as const) {
    requireText(`connection.${field}`, connection![field]);
  }
  // The id becomes a word of a shell script.
  if (!/^[A-Za-z0-9-]+$/.test(connection!.hostId))
    throw new Error("connection.hostId: letters, digits and '-' are expected");
  if (typeof seconds !== "number" || !(seconds > 0)) throw new Error("seconds: a number above 0 is expected");
  for (const field of ["image", "imageFile"] as const) {
    if (request![field] !== undefined) requireText(field, request![field]);
  }
  return request as StartRequest;
}

export interface StartRequest {
  /** The rescue system. */
  ssh: SshConnection;
  /** The host's agent. */
  connection: Connection;
  /** Seconds until the host has to answer. */
  seconds: number;
  /** Digest of the image that was installed. */
  image?: string;
  /** The image itself, when it is not that of this machine's store. */
  imageFile?: string;
}

const pollMilliseconds = 3_000;
/** The machine goes down a moment later, so that the answer still arrives. */
const reboot = (hostId: string) => `
[ "$(cat /root/palisade-install/installed 2>/dev/null)" = ${hostId} ] || { echo "this system did not install ${hostId}" >&2; exit 1; }
sync
(sleep 1; systemctl reboot || reboot -f || echo b >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &`;

/**
 * Starts the installed host: reboots the rescue system unless the host is there already, and waits until its agent
 * answers with the identity that was enrolled. When it is repeated after an interruption, it does the steps that
 * remain.
 */
async function startHost({ ssh, connection, seconds }: StartRequest) {
  const deadline = Date.now() + seconds * 1000;
  const quiet = operation(deadline);
  let isRebooting = false;
  for (let last = "nothing answered"; ;) {
    try {
      return await withAgent(connection, async ({ hosts }) => {
        const [{ kernelVersion }, integrity] = await Promise.all([hosts.getHost({}), hosts.getIntegrity({})]);
        return factsOf(integrity, kernelVersion);
      });
    } catch (error) {
      if ((error as Error).name === "ForeignHostError") throw error;
      last = (error as Error).message;
    }
    if (Date.now() > deadline) {
      throw new Error(
        `host ${connection.hostId} did not answer at ${connection.endpoint} within ${seconds} s: ${last}. Look at the machine's ` +
          "console; if it is back in the rescue system, run `pulumi up` again",
      );
    }
    if (!isRebooting) {
      process.stderr.write(`rebooting ${ssh.host} into the host\n`);
      try {
        await remoteShell(quiet, reboot(connection.hostId), { ...ssh, dialErrorLimit: 0 });
        isRebooting = true;
      } catch (error) {
        // Nobody listens: the machine may be rebooting already.
        if (!/no SSH connection/.test((error as Error).message)) throw error;
      }
    }
    await sleep(pollMilliseconds);
  }
}

function operation(deadline: number): Operation {
  return {
    owner: { backend: "", project: "", stack: "", urn: "" },
    signal: new AbortController().signal,
    deadline,
    log: () => undefined,
    status: () => undefined,
    checkpoint: noCheckpoint,
  };
}
