/** Seals images with this machine's tools. */
import type {
  ImageSealer,
  Operation,
  RegistryAccess,
  RegistryService,
  SealFound,
  SealObserved,
  SealSpec,
  SigningKey,
} from "../../backends/index.js";
import { join } from "node:path";
import { defaultKeysDirectory, keyPair } from "../../../shared/directories.js";
import { within } from "../../system/time.js";
import { withLocalCredentials } from "../registry/local-access.js";
import { Repository } from "../registry/repository.js";
import { signatureTag } from "./cosign.js";
import { keyId } from "./dsse.js";
import { readImage } from "./image.js";
import { findSeals, isSealThere } from "./publish.js";
import { sealImage } from "./seal-image.js";
import { openSealing } from "./sealing.js";
import { certificateHash, readCertificate } from "./signer.js";

export class LocalSealer implements ImageSealer {
  constructor(
    private readonly cacheDirectory: string,
    private readonly findRegistry: RegistryService["findRegistry"],
  ) {}

  async identify({ layerSigner, sealSigner }: { layerSigner: SigningKey; sealSigner: SigningKey }) {
    return {
      layerKey: certificateHash(await readCertificate("layerSigner", layerSigner)),
      sealKeyId: keyId((await readCertificate("sealSigner", sealSigner)).publicKey),
    };
  }

  async seal(op: Operation, spec: SealSpec): Promise<SealObserved> {
    return within(op, `${spec.repository}@${spec.digest}`, async (signal) => {
      const sealing = await openSealing(spec, {
        cacheDirectory: this.cacheDirectory,
        status: (message) => op.status(message),
        log: (severity, message) => op.log(severity, message),
        signal,
      });
      const registry = await withLocalCredentials(spec.registry, this.findRegistry);
      return sealImage(sealing, { ...spec, registry }, (name) => op.checkpoint(name));
    });
  }

  private async operatorsSigners(repository: Repository, image: string): Promise<NonNullable<SealFound["signers"]>> {
    const key = (name: string): SigningKey => keyPair(defaultKeysDirectory(), name);
    const isSigned = (await repository.manifest(signatureTag(image))) !== undefined;
    return {
      layerSigner: key("layers/layer"),
      sealSigner: key("layers/seal"),
      ...(isSigned ? { imageSigner: key("images/signer") } : {}),
    };
  }

  async readSeal(
    registry: RegistryAccess,
    name: string,
    digest: string,
    known?: SealObserved,
    sealCertificateFile = join(defaultKeysDirectory(), "layers/seal.crt"),
  ): Promise<SealFound | undefined> {
    const { publicKey } = await readCertificate("sealSigner", { certificateFile: sealCertificateFile });
    const repository = new Repository(await withLocalCredentials(registry, this.findRegistry), name);
    try {
      if ((await repository.manifest(digest)) === undefined) return undefined;
      const image = (await readImage(repository, digest)).descriptor.digest;
      if (known && known.sealKeyId !== keyId(publicKey)) {
        return (await isSealThere(repository, image, known.sealDigest)) ? known : undefined;
      }
      const seals = await findSeals(repository, image, publicKey);
      const found = seals.find((seal) => seal.digest === known?.sealDigest) ?? seals.at(-1);
      if (!found) return undefined;
      return {
        digest,
        reference: `${registry.server}/${name}@${digest}`,
        sealDigest: found.digest,
        rootHashes: found.manifest.layers.map(({ rootHash }) => rootHash),
        layerKey: found.manifest.layerKey,
        sealKeyId: keyId(publicKey),
        reusedLayers: known?.reusedLayers ?? 0,
        ...(known ? {} : { signers: await this.operatorsSigners(repository, image) }),
      };
    } finally {
      repository.close();
    }
  }
}
