/** Looks channels up and moves them, from this machine. */
import { createPublicKey } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import type {
  ChannelPublication,
  Channels,
  ChannelSpec,
  ChannelTarget,
  Operation,
  RegistryAccess,
  RegistryService,
} from "../../backends/index.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { withLock } from "../../system/lock.js";
import { within } from "../../system/time.js";
import { withLocalCredentials } from "../registry/local-access.js";
import { Repository } from "../registry/repository.js";
import { isSigned } from "../sealing/cosign.js";
import { readImage } from "../sealing/image.js";
import { findSeals } from "../sealing/publish.js";
import { openSigner, readCertificate } from "../sealing/signer.js";
import { sealTools } from "../sealing/tools.js";
import { channelId, channelTarget, moveChannel, publicationOf } from "./channel.js";

/** How long the lookup of a channel may take, milliseconds. */
const lookupMilliseconds = 60_000;

export class LocalChannels implements Channels {
  private readonly directory: string;

  constructor(
    stateDirectory: string,
    private readonly cacheDirectory: string,
    private readonly findRegistry: RegistryService["findRegistry"],
  ) {
    this.directory = join(stateDirectory, "channels");
  }

  async resolve(spec: ChannelSpec, publicKey?: string): Promise<string | undefined> {
    return this.with(spec, AbortSignal.timeout(lookupMilliseconds), async (repository, { place, newest, remember }) => {
      const target = await channelTarget(repository, spec.channel);
      if (target === undefined || publicKey === undefined) return target?.digest;
      const publishedAt = await publicationOf(repository, spec.channel, target.digest, createPublicKey(publicKey));
      if (publishedAt === undefined) {
        throw new Error(
          `${place} leads to ${target.digest}, which publicKey has not published into it; whoever moved it has another key`,
        );
      }
      if (publishedAt < newest) {
        throw new Error(
          `${place} leads to ${target.digest}, published ${date(publishedAt)}, and this machine has seen a publication of ${date(newest)}: ` +
            "the channel was set back by somebody without the key; publish into it again what is to be run",
        );
      }
      await remember(publishedAt);
      return target.digest;
    });
  }

  async publish(op: Operation, spec: ChannelPublication, from?: string): Promise<ChannelTarget> {
    const { channel, digest } = spec;
    return within(op, `${spec.repository}@${digest}`, async (signal) => {
      const tools = await sealTools(this.cacheDirectory, signal, (message) => op.status(message));
      const signer = await openSigner("imageSigner", spec.imageSigner, tools, signal);
      const sealKey = (await readCertificate("sealSigner", spec.sealSigner)).publicKey;
      return this.with(spec, signal, async (repository, { place, newest, remember }) => {
        const present = (await channelTarget(repository, channel))?.digest;
        if (from !== undefined && present !== undefined && present !== from && present !== digest) {
          op.log(
            "warning",
            `${place} leads to ${present} and not to ${from} any more: whoever moved it owns it, so it stays`,
          );
          return { digest: present };
        }
        const image = (await readImage(repository, digest)).descriptor.digest;
        if ((await findSeals(repository, image, sealKey)).length === 0) {
          throw new Error(`${place} stays: ${digest} has no seal by the key of sealSigner`);
        }
        if (!(await isSigned(repository, digest, signer.publicKey))) {
          throw new Error(`${place} stays: ${digest} is not signed by the key of imageSigner`);
        }
        const publishedAt = await publicationOf(repository, channel, digest, signer.publicKey);
        if (present === digest && publishedAt !== undefined && publishedAt >= newest) return { digest };
        op.status(`moving ${place}`);
        const now = Math.max(Date.now(), newest + 1, (publishedAt ?? 0) + 1);
        await moveChannel(repository, channel, digest, now, signer);
        await remember(now);
        await op.checkpoint("channel-moved");
        return { digest };
      });
    });
  }

  /** One call at a time for each channel on this machine, with what this machine remembers of the channel. */
  private async with<T>(
    spec: ChannelSpec,
    signal: AbortSignal,
    work: (repository: Repository, memory: Memory) => Promise<T>,
  ): Promise<T> {
    const { registry, repository: name, channel } = spec;
    const file = join(this.directory, `${channelId(registry.server, name, channel)}.json`);
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    const access: RegistryAccess = await withLocalCredentials(registry, this.findRegistry);
    const repository = new Repository(access, name, signal);
    try {
      return await withLock(`${file}.lock`, signal, async () => {
        const place = `channel ${channel} of ${registry.server}/${name}`;
        const kept = await readFileIfPresent(file);
        const newest = kept === undefined ? 0 : decode(memorySchema, kept, file).publishedAt;
        const remember = (publishedAt: number) =>
          writeFileAtomic(file, `${JSON.stringify({ place, publishedAt }, undefined, 1)}\n`);
        return work(repository, { place, newest, remember });
      });
    } finally {
      repository.close();
    }
  }
}

const memorySchema = object({ publishedAt: v.pipe(v.number(), v.safeInteger()) });

interface Memory {
  /** For messages. */
  place: string;
  /** Newest publication that this machine has seen, milliseconds since the epoch; 0 when it has seen none. */
  newest: number;
  remember: (publishedAt: number) => Promise<void>;
}

const date = (milliseconds: number): string => new Date(milliseconds).toISOString();
