/** `palisade recover`: repairs a file backend after Pulumi was killed, when Pulumi refuses to work on it. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as v from "valibot";
import { decode, object } from "../shared/decode.js";
import { stackOfEnvironment } from "./arguments.js";
import { type OutputOptions, writeDocument } from "./output.js";
import { repairCheckpoint } from "./recovery/stack-checkpoint.js";
import { clearStaleLocks, thisMachine } from "./recovery/stack-lock.js";

/**
 * JSON: backend, project and stack, and a description of what was done, which is empty when there was nothing to do.
 */
export async function recover(options: OutputOptions & { stack?: string }): Promise<number> {
  const stack = options.stack ?? stackOfEnvironment();
  const project = projectName();
  const backend = await backendFolder();
  const place = { backend, project, stack };
  const messages: string[] = [];
  const sayOn = (stream: "stdout" | "stderr") => (line: string) => {
    messages.push(line);
    // Standard output is for the JSON alone.
    process[options.output === "json" ? "stderr" : stream].write(`palisade: ${line}\n`);
  };
  const isFree = await clearStaleLocks(place, thisMachine, sayOn("stderr"));
  // A stack on which a running Pulumi works is not touched.
  if (isFree) repairCheckpoint(place, sayOn("stdout"));
  if (options.output === "json") writeDocument({ ...place, messages });
  return isFree ? 0 : 1;
}

/** The folder of the backend that plain `pulumi` uses here. */
async function backendFolder(): Promise<string> {
  const url = process.env["PULUMI_BACKEND_URL"] || (await loggedInto());
  if (!url.startsWith("file://")) {
    throw new Error(
      `the backend ${url} is no folder of this machine; \`pulumi cancel\` removes a lock of other backends, and their state is kept by them`,
    );
  }
  // Read as Pulumi reads it: `file://~` is the home directory, and what follows is a path.
  const place = url.slice("file://".length);
  if (place === "" || place === "~" || place.startsWith("~/")) {
    return path.join(process.env["HOME"] ?? "/", place.slice(1));
  }
  return place.startsWith("/") ? fileURLToPath(url) : path.resolve(place);
}

async function loggedInto(): Promise<string> {
  const { stdout } = await promisify(execFile)("pulumi", ["whoami", "--json", "--non-interactive"]).catch(
    (error: Error & { stderr?: string; code?: unknown }) => {
      if (error.code === "ENOENT")
        throw new Error("PULUMI_BACKEND_URL is not set, and pulumi is not on PATH to name its backend");
      throw new Error(`PULUMI_BACKEND_URL is not set, and pulumi names no backend: ${error.stderr ?? error.message}`);
    },
  );
  return decode(object({ url: v.string() }), stdout, "pulumi whoami").url;
}

/** The project's name, from the nearest Pulumi.yaml. */
function projectName(): string {
  for (let folder = process.cwd(); ; folder = path.dirname(folder)) {
    const file = path.join(folder, "Pulumi.yaml");
    if (existsSync(file)) {
      const name = /^name: *["']?([^\s"'#]+)/m.exec(readFileSync(file, "utf8"))?.[1];
      if (name === undefined) throw new Error(`${file} names no project`);
      return name;
    }
    if (folder === path.dirname(folder)) {
      throw new Error(`there is no Pulumi.yaml in ${process.cwd()} or above; run this in the project's folder`);
    }
  }
}
