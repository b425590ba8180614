/** Ephemeral stacks on this machine: a folder each in the state directory, made before anything else of the stack. */
import {
  accessSync,
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { LocalWorkspace, type PulumiFn, type Stack } from "@pulumi/pulumi/automation/index.js";
import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import { packageRoot, defaultStateDirectory } from "../../shared/directories.js";
import { identifyProcess, type ProcessIdentity } from "../../shared/process-identity.js";

const schemaVersion = 1;

/** Content of `marker.json` in the stack's folder. */
export interface EphemeralMarker {
  schemaVersion: number;
  id: string;
  project: string;
  stack: string;
  /** The process that the stack belongs to: with it, the stack ends. */
  runner: ProcessIdentity;
  /** ISO 8601. */
  createdAt: string;
  /** Its `up` failed, and it was asked to be kept for a look. */
  kept: boolean;
}

/** Folder of all ephemeral stacks. */
export function ephemeralDirectory(): string {
  return path.join(defaultStateDirectory(), "ephemeral");
}

/** Folder of one: its backend, its project, its passphrase. */
export function ephemeralFolder(id: string): string {
  if (!/^ephemeral-[0-9a-f]{12}$/.test(id)) {
    throw new Error(`id: ${JSON.stringify(id)} is no ephemeral stack; it looks like ephemeral-0123456789ab`);
  }
  return path.join(ephemeralDirectory(), id);
}

/** URL of the stack's own backend; the ownership markers of all that the stack has made carry it. */
export function ephemeralBackend(id: string): string {
  return `file://${path.join(ephemeralFolder(id), "backend")}`;
}

export function writeEphemeralMarker(marker: EphemeralMarker): void {
  const file = path.join(ephemeralFolder(marker.id), "marker.json");
  writeFileSync(`${file}.new`, `${JSON.stringify(marker, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Undefined when there is no such stack any more. */
export function readEphemeralMarker(id: string): EphemeralMarker | undefined {
  const file = path.join(ephemeralFolder(id), "marker.json");
  if (!existsSync(file)) return undefined;
  const content = readFileSync(file, "utf8");
  const version = decode(object({ schemaVersion: v.number() }), content, file).schemaVersion;
  if (version !== schemaVersion) {
    throw new Error(`${file}: schema version ${version} is not known, only ${schemaVersion}`);
  }
  const fields = object({ id: v.string(), project: v.string(), stack: v.string(), runner: object({}) });
  return decode(fields, content, file) as unknown as EphemeralMarker;
}

/** Of all ephemeral stacks of this machine. */
export function listEphemeralMarkers(): EphemeralMarker[] {
  if (!existsSync(ephemeralDirectory())) return [];
  return readdirSync(ephemeralDirectory())
    .filter((name) => /^ephemeral-[0-9a-f]{12}$/.test(name))
    .map((name) => readEphemeralMarker(name))
    .filter((marker) => marker !== undefined);
}

/** Marker of a stack that belongs to this process. */
export async function newEphemeralMarker(id: string, project: string): Promise<EphemeralMarker> {
  const runner = (await identifyProcess(process.pid))!;
  return { schemaVersion, id, project, stack: id, runner, createdAt: new Date().toISOString(), kept: false };
}

/** Removes the folder, once nothing of the stack exists any more. */
export function removeEphemeralFolder(id: string): void {
  rmSync(ephemeralFolder(id), { recursive: true, force: true });
}

/** As in Pulumi.yaml; the type of the Automation API lacks it. */
const plugins: object = { plugins: { providers: [{ name: "palisade", path: path.join(packageRoot(), "bin") }] } };

/** @throws Error when the program that makes and destroys stacks is not on PATH; nothing was made then. */
export function requirePulumi(): void {
  const folders = (process.env["PATH"] ?? "").split(path.delimiter).filter((folder) => folder !== "");
  for (const folder of folders) {
    try {
      accessSync(path.join(folder, "pulumi"), constants.X_OK);
      return;
    } catch {
      // The next folder may have it.
    }
  }
  throw new Error(
    "pulumi is not on PATH, and ephemeral stacks are made and destroyed by it: install it (https://www.pulumi.com/docs/install/), " +
      'or in a clone of Palisade run `make setup` and `eval "$(bin/palisade env)"`. Nothing was made',
  );
}

/** The stack in its backend, made where it is absent; without a program it can be destroyed only. */
export function openEphemeralStack(marker: EphemeralMarker, program: PulumiFn = async () => {}): Promise<Stack> {
  const folder = ephemeralFolder(marker.id);
  const url = ephemeralBackend(marker.id);
  return LocalWorkspace.createOrSelectStack(
    { projectName: marker.project, stackName: marker.stack, program },
    {
      workDir: path.join(folder, "project"),
      projectSettings: {
        name: marker.project,
        runtime: "nodejs",
        backend: { url },
        ...plugins,
      },
      envVars: {
        PULUMI_BACKEND_URL: url,
        PULUMI_CONFIG_PASSPHRASE_FILE: path.join(folder, "passphrase"),
        // The file rules: a passphrase of another project in the caller's environment must not be tried.
        PULUMI_CONFIG_PASSPHRASE: "",
        PULUMI_SKIP_UPDATE_CHECK: "true",
      },
    },
  );
}
