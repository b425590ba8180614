/** `palisade metal`: the steps of an installation on bare metal that need the operator's keys. `BareMetalHost` runs them. */
import { setTimeout as sleep } from "node:timers/promises";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  EnrollmentRequestSchema,
  EnrollmentResponseSchema,
} from "../../hosts/api/gen/palisade/agent/v1/enrollment_pb.js";
import { defaultKeysDirectory, hostKeyFiles } from "../internal/directories.js";
import path from "node:path";
import type { Operation } from "../provider/backends.js";
import { readAuthority } from "../provider/certificates/authority.js";
import { signHostCertificate } from "../provider/certificates/host-certificate.js";
import { remoteShell } from "../provider/command/remote-command.js";
import type { Connection as SshConnection } from "../provider/command/ssh.js";
import { authenticatedVariables } from "../provider/firmware/authenticated-variables.js";
import { factsOf } from "../provider/hypervisor/observation.js";
import { withAgent } from "./agent.js";
import type { Command } from "./commands.js";
import type { Connection } from "./stack-state.js";

export const metalCommand: Command = {
  usage: "metal firmware-keys|sign|start [--keys DIR]",
  help: "steps of a bare-metal installation; BareMetalHost runs them",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { keys: { type: "string" } },
    });
    const keys = path.resolve(values.keys ?? defaultKeysDirectory());
    const [name = ""] = positionals;
    const isStep = positionals.length === 1 && Object.hasOwn(steps, name);
    const step = isStep ? steps[name as keyof typeof steps] : undefined;
    if (!step) {
      process.stderr.write(`palisade metal: expected one of ${Object.keys(steps).join(", ")}\n`);
      return 2;
    }
    process.stdout.write(await step(keys));
    return 0;
  },
};

const steps = {
  /** Lines of name, GUID, where the content begins, and base64. */
  "firmware-keys": async (keys: string): Promise<string> =>
    (await authenticatedVariables(keys))
      .map(({ name, guid, contentOffset, data }) => `${name} ${guid} ${contentOffset} ${data.toString("base64")}\n`)
      .join(""),

  /** An EnrollmentRequest on standard input; prints the EnrollmentResponse. */
  sign: async (keys: string): Promise<string> => {
    const request = fromJsonString(EnrollmentRequestSchema, await text(process.stdin), { ignoreUnknownFields: true });
    const files = hostKeyFiles.certificateAuthority;
    const authority = await readAuthority({
      certificateFile: path.join(keys, files.certificateFile),
      keyFile: path.join(keys, files.keyFile),
    });
    const response = create(EnrollmentResponseSchema, {
      certificateChain: await signHostCertificate(authority, request.hostId, request.certificateRequest),
      certificateAuthority: authority.certificate,
      signerTime: timestampNow(),
    });
    return toJsonString(EnrollmentResponseSchema, response);
  },

  /** A StartRequest on standard input; prints the integrity facts of the host that then runs. */
  start: async (): Promise<string> =>
    JSON.stringify(await start(JSON.parse(await text(process.stdin)) as StartRequest)),
};

export interface StartRequest {
  /** The rescue system. */
  ssh: SshConnection;
  /** The host's agent. */
  connection: Connection;
  /** Seconds until the host has to answer. */
  seconds: number;
}

const pollMilliseconds = 3_000;
/** The machine goes down a moment later, so that the answer still comes. */
const reboot = (hostId: string) => `
[ "$(cat /root/palisade-install/installed 2>/dev/null)" = ${hostId} ] || { echo "this system did not install ${hostId}" >&2; exit 1; }
sync
(sleep 1; systemctl reboot || reboot -f || echo b >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &`;

/**
 * Starts the installed host: reboots the rescue system unless the host is there already, and waits until its agent answers with the
 * identity that was enrolled. Repeated after whatever interruption, it does what is left.
 */
async function start({ ssh, connection, seconds }: StartRequest) {
  const deadline = Date.now() + seconds * 1000;
  const quiet = operation(deadline);
  let isRebooting = false;
  for (let last = "nothing answered"; ;) {
    try {
      return await withAgent(connection, async ({ host }) => {
        const [{ kernelVersion }, integrity] = await Promise.all([host.getHost({}), host.getIntegrity({})]);
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
        // Nobody listens: it may be on its way already.
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
    checkpoint: async () => undefined,
  };
}
