/** `palisade seal`: seals an image in a registry, as the resource SealedImage does. */
import { readFileSync } from "node:fs";
import { defaultCacheDirectory, defaultKeysDirectory, keyPair } from "../shared/directories.js";
import { noCheckpoint, type Operation, type SealObserved, type SigningKey } from "../provider/backends/index.js";
import { defaultStateDirectory } from "../shared/directories.js";
import { LocalRegistries } from "../provider/local/registry/local-registries.js";
import { LocalSealer } from "../provider/local/sealing/local-sealer.js";
import type { ImageReference } from "../shared/image-reference.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** Options of `palisade seal`. */
export interface SealOptions extends OutputOptions {
  keys?: string;
  layerPkcs11?: string;
  layerCertificate?: string;
  username?: string;
  /** The password itself. */
  passwordFile?: string;
  /** PEM. */
  ca?: string;
}

/** JSON: what was sealed, as the outputs of SealedImage name it. */
export async function seal({ server, repository, digest }: ImageReference, options: SealOptions): Promise<number> {
  const keys = options.keys ?? defaultKeysDirectory();
  const { layerPkcs11: pkcs11Uri, layerCertificate: certificateFile } = options;
  const layerSigner: SigningKey =
    pkcs11Uri === undefined || certificateFile === undefined
      ? keyPair(keys, "layers/layer")
      : { certificateFile, pkcs11Uri };
  const signers = {
    layerSigner,
    sealSigner: keyPair(keys, "layers/seal"),
    imageSigner: keyPair(keys, "images/signer"),
  };
  for (const signer of Object.values(signers)) readSigner(signer);
  const registries = new LocalRegistries(defaultStateDirectory());
  const sealer = new LocalSealer(defaultCacheDirectory(), (wanted) => registries.findRegistry(wanted));
  // The certificates are checked first, as sealing can take minutes.
  await sealer.identify(signers);
  const registry = {
    server,
    ...(options.username === undefined ? {} : { username: options.username, password: options.passwordFile }),
    ...(options.ca === undefined ? {} : { ca: options.ca }),
  };
  const sealed = await cancellable((operation) => sealer.seal(operation, { registry, repository, digest, ...signers }));
  if (options.output === "json") writeDocument(sealed);
  else process.stdout.write(summary(sealed));
  return 0;
}

function readSigner({ certificateFile, keyFile }: SigningKey): void {
  for (const file of [certificateFile, keyFile]) {
    if (file === undefined) continue;
    try {
      readFileSync(file);
    } catch (error) {
      const advice = "`palisade keys init` makes the operator's keys; --keys names another folder";
      throw new Error(`${file} cannot be read: ${(error as Error).message}; ${advice}`, { cause: error });
    }
  }
}

/** Runs with progress on standard error. SIGINT and SIGTERM end it early; the next run continues from there. */
async function cancellable<T>(work: (operation: Operation) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort(new Error("interrupted; what was sealed so far is kept, the next run goes on"));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  const line = (message: string) => void process.stderr.write(`${message}\n`);
  try {
    return await work({
      owner: { backend: "", project: "", stack: "", urn: "" },
      signal: controller.signal,
      deadline: Number.MAX_SAFE_INTEGER,
      log: (severity, message) => line(severity === "info" ? message : `${severity}: ${message}`),
      status: line,
      checkpoint: noCheckpoint,
    });
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

function summary({ reference, sealDigest, rootHashes, layerKey, sealKeyId, reusedLayers }: SealObserved): string {
  return [
    `image      ${reference}`,
    `seal       ${sealDigest}`,
    `layers     ${rootHashes.length}, of which ${reusedLayers} had been sealed before`,
    ...rootHashes.map((hash, index) => `  ${String(index + 1).padStart(2)}       ${hash}`),
    `layer key  ${layerKey}`,
    `seal key   ${sealKeyId}`,
    "",
  ].join("\n");
}
