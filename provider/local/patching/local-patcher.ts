/** Patches images with this machine's tools. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type {
  ImagePatcher,
  Operation,
  PatchedFound,
  PatchObserved,
  PatchSpec,
  RegistryAccess,
  RegistryObserved,
  RegistryService,
} from "../../backends/index.js";
import { channelTarget, lastChannelOf } from "../channels/channel.js";
import { defaultKeysDirectory, keyPair } from "../../../shared/directories.js";
import { withLock } from "../../system/lock.js";
import { MarkerStore, idFor, processOf, type Marker } from "../../system/marker.js";
import { within } from "../../system/time.js";
import { withLocalCredentials } from "../registry/local-access.js";
import { Repository } from "../registry/repository.js";
import { attestationTag, attested } from "../sealing/cosign.js";
import { openSigner, readCertificate } from "../sealing/signer.js";
import { sealTools } from "../sealing/tools.js";
import { shorten } from "../../../shared/text.js";
import { endBuildKit, processName, startBuildKit } from "./buildkit.js";
import { runCopa } from "./copa.js";
import { defaultDatabaseDirectory, findDatabase } from "./database.js";
import { baseDigest, databaseNote, patchImage, tagNote } from "./patch-image.js";
import { findPrograms } from "./programs.js";
import { writeToolAccess } from "./tool-access.js";
import { copaRegistries, pushToolingImage } from "./tooling-image.js";
import { readManifest } from "./transfer.js";
import { openVexType, summaryOf, type VexDocument } from "./vex.js";

/** One run of Copa may take this long, milliseconds. */
const patchLimit = 8 * 60_000;

interface PatchDetails {
  /**
   * Private folder in which the tools work, below the system's temporary folder, because the path of BuildKit's socket
   * has to be short.
   */
  workspace: string;
}
type PatchMarker = Marker<{ reference: string }, PatchDetails>;

export class LocalPatcher implements ImagePatcher {
  private readonly markers: MarkerStore<{ reference: string }, PatchDetails>;

  constructor(
    stateDirectory: string,
    private readonly cacheDirectory: string,
    private readonly registries: RegistryService,
  ) {
    this.markers = new MarkerStore(join(stateDirectory, "patches"), "patch");
  }

  async databaseDigest(directory?: string): Promise<string> {
    return (await this.database(directory)).digest;
  }

  async requireTools(): Promise<void> {
    await findPrograms();
  }

  async patch(op: Operation, spec: PatchSpec, previous?: string): Promise<PatchObserved> {
    const reference = `${spec.registry.server}/${spec.repository}@${spec.digest}`;
    const id = idFor(this.markers.prefix, op.owner);
    // One at a time in a repository, because two would set the same tag.
    const place = createHash("sha256").update(`${spec.registry.server}/${spec.repository}`).digest("hex");
    return within(op, reference, (signal) =>
      withLock(join(this.markers.directory, ".locks", place), signal, async () => {
        const { copa } = await findPrograms();
        const database = await this.database(spec.database);
        const tools = await sealTools(this.cacheDirectory, signal, (message) => op.status(message));
        const signer = await openSigner("imageSigner", spec.imageSigner, tools, signal);
        const registry = await withLocalCredentials(spec.registry, (server) => this.registries.findRegistry(server));
        await this.endPatch(op, id);
        const folder = join(tmpdir(), `palisade-patch-${randomBytes(6).toString("hex")}`);
        const marker = await this.markers.adoptOrCreate(op.owner, { reference }, { workspace: folder });
        await op.checkpoint("marker-written");
        try {
          await mkdir(folder, { mode: 0o700 });
          const work = await this.registries.createRegistry(op, { port: 0 });
          const access = await writeToolAccess(folder, work);
          return await patchImage(
            {
              ...{ database, signer, work, access, folder, signal },
              update: (image, report, tag) =>
                this.update(op, { marker, work, folder, access, copa, image, report, tag }, signal),
              status: (message) => op.status(message),
              log: (severity, message) => op.log(severity, message),
              checkpoint: (name) => op.checkpoint(name),
            },
            { ...spec, registry },
            previous,
          );
        } finally {
          await this.endPatch(op, id);
        }
      }),
    );
  }

  async readPatched(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    isKnown: boolean,
  ): Promise<PatchedFound | undefined> {
    const access = await withLocalCredentials(registry, (server) => this.registries.findRegistry(server));
    const target = new Repository(access, repository);
    try {
      if ((await target.manifest(digest)) === undefined) return undefined;
      const reference = `${registry.server}/${repository}@${digest}`;
      const made = isKnown ? undefined : await madeFrom(target, digest);
      return { digest, reference, ...(made === undefined ? {} : { made }) };
    } finally {
      target.close();
    }
  }

  async endPatch(op: Operation, id: string): Promise<void> {
    const marker = await this.markers.read(id);
    if (marker === undefined) return;
    await endBuildKit(processOf(marker, processName), this.markers.folder(id));
    await rm(marker.details.workspace, { recursive: true, force: true });
    // Not bound by the operation, which may have been cancelled.
    const unbound = { ...op, signal: new AbortController().signal, deadline: Date.now() + 60_000 };
    await this.registries.deleteRegistry(unbound, idFor("registry", marker.owner));
    await this.markers.remove(id);
  }

  private database(directory = defaultDatabaseDirectory(this.cacheDirectory)) {
    return findDatabase(directory);
  }

  private async update(op: Operation, step: UpdateStep, signal: AbortSignal): Promise<string> {
    const { marker, work, folder, access, copa, image, report, tag } = step;
    const status = (message: string) => op.status(message);
    await mkdir(this.cacheDirectory, { recursive: true, mode: 0o700 });
    await pushToolingImage(work, this.cacheDirectory, status, signal);
    const socket = join(folder, "buildkitd.sock");
    const place = this.markers.folder(marker.id);
    status("starting BuildKit");
    const process = await startBuildKit(
      { folder: place, socket, server: work.server, caFile: access.caFile, upstreams: await copaRegistries(copa) },
      async (started) => {
        marker.processes = [started];
        await this.markers.write(marker);
      },
      signal,
    );
    try {
      return await runCopa(
        {
          ...{ reference: image, tag, report, socket, access },
          vexFile: join(folder, "copa-vex.json"),
          logFile: join(this.markers.directory, `${marker.id}.log`),
          limit: Math.min(patchLimit, op.deadline - Date.now()),
        },
        (line) => {
          const step = progress(line);
          if (step !== undefined) status(`patching: ${step}`);
        },
        signal,
      );
    } finally {
      await endBuildKit(process, place);
    }
  }
}

/** Facts about a patched image, when the operator's key has attested it. */
async function madeFrom(target: Repository, digest: string): Promise<PatchedFound["made"]> {
  const { annotations } = (await readManifest(target, digest)).manifest;
  const original = annotations?.[baseDigest];
  const key = (name: string) => keyPair(defaultKeysDirectory(), name);
  const imageSigner = key("images/signer");
  const { publicKey } = await readCertificate("imageSigner", imageSigner);
  const [attestation] = await attested(target, digest, openVexType, publicKey);
  const holder = await target.manifest(attestationTag(digest));
  if (original === undefined || attestation === undefined || holder === undefined) return undefined;
  const document = attestation.predicate as VexDocument;
  const { fixed, affected } = summaryOf(document);
  const tag = attestation.notes[tagNote];
  const place = `${target.server}/${target.name}`;
  const channel = await lastChannelOf(target, digest, publicKey);
  const leadsTo = channel === undefined ? undefined : (await channelTarget(target, channel))?.digest;
  return {
    ...{ original, imageSigner, ...(tag === undefined ? {} : { tag }) },
    ...(channel === undefined
      ? {}
      : {
          channel: {
            name: channel,
            ...(leadsTo === undefined ? {} : { digest: leadsTo }),
            ...{ layerSigner: key("layers/layer"), sealSigner: key("layers/seal") },
          },
        }),
    observed: {
      ...{ digest, reference: `${place}@${digest}`, vexReference: `${place}@${holder.digest}` },
      ...{ fixableBefore: fixed, fixableAfter: 0, remaining: affected, scannedAt: document.timestamp },
      databaseDigest: attestation.notes[databaseNote] ?? "",
    },
  };
}

interface UpdateStep {
  marker: PatchMarker;
  work: RegistryObserved;
  folder: string;
  access: Awaited<ReturnType<typeof writeToolAccess>>;
  /** File of the program. */
  copa: string;
  image: string;
  report: string;
  tag: string;
}

/** The progress in a line of Copa's output; undefined for other lines. */
export function progress(line: string): string | undefined {
  const step = /^#\d+ (?:\[.*\] )?(?!DONE|CACHED|\d|sha256)(\S.*)$/.exec(line)?.[1];
  return step === undefined ? undefined : shorten(step, 80);
}
