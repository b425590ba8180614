/** `palisade seal`: seals an image in a registry, as the resource SealedImage does. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { cacheDirectory, defaultKeysDirectory, keyPair } from "../internal/directories.js";
import type { Operation, RegistryAccess, SealObserved, SigningKey } from "../provider/backends.js";
import { defaultStateDirectory } from "../provider/directories.js";
import { LocalRegistries } from "../provider/registry/local-registries.js";
import { parsePkcs11Uri } from "../provider/sealing/pkcs11-uri.js";
import { parseImageReference, referenceProblem, type ImageReference } from "../shared/image-reference.js";
import { LocalSealer } from "../provider/sealing/local-sealer.js";
import type { Command } from "./commands.js";

export const sealCommand: Command = {
  usage:
    "seal SERVER/REPOSITORY@sha256:… [--keys DIR] [--layer-pkcs11 URI --layer-certificate FILE] " +
    "[--username U --password-file F] [--ca FILE] [--json]",
  help: "seals an image in a registry: its layers signed, what it is signed, and the image itself",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        keys: { type: "string" },
        "layer-pkcs11": { type: "string" },
        "layer-certificate": { type: "string" },
        username: { type: "string" },
        "password-file": { type: "string" },
        ca: { type: "string" },
        json: { type: "boolean", default: false },
      },
    });
    const [reference] = positionals;
    if (reference === undefined || positionals.length > 1) {
      process.stderr.write("palisade seal: expected one image, e.g. palisade seal registry.example/web@sha256:…\n");
      return 2;
    }
    const { server, repository, digest } = imageReference(reference);
    const keys = path.resolve(values.keys ?? defaultKeysDirectory());
    const registry = await access(server, values.username, values["password-file"], values.ca);
    const registries = new LocalRegistries(defaultStateDirectory());
    const sealer = new LocalSealer(cacheDirectory(), (wanted) => registries.findRegistry(wanted));
    const sealed = await cancellable((operation) =>
      sealer.seal(operation, {
        registry,
        repository,
        digest,
        layerSigner: layerSigner(keys, values["layer-pkcs11"], values["layer-certificate"]),
        sealSigner: keyPair(keys, "layers/seal"),
        imageSigner: keyPair(keys, "images/signer"),
      }),
    );
    process.stdout.write(values.json ? `${JSON.stringify(sealed, undefined, 2)}\n` : summary(sealed));
    return 0;
  },
};

/** @throws when it is no reference by digest. */
function imageReference(text: string): ImageReference {
  const problem = referenceProblem(text);
  if (problem === undefined) return parseImageReference(text);
  throw new Error(
    `'${text}': an image is named by its digest, SERVER/REPOSITORY@sha256:<64 hexadecimal digits>; a tag may point elsewhere tomorrow: ` +
      problem,
  );
}

function layerSigner(keys: string, pkcs11Uri: string | undefined, certificateFile: string | undefined): SigningKey {
  if (pkcs11Uri === undefined && certificateFile === undefined) return keyPair(keys, "layers/layer");
  if (pkcs11Uri === undefined || certificateFile === undefined) {
    throw new Error("--layer-pkcs11 and --layer-certificate belong together: give both or none");
  }
  try {
    parsePkcs11Uri(pkcs11Uri);
  } catch (error) {
    throw new Error(`--layer-pkcs11: ${(error as Error).message}`);
  }
  return { certificateFile: path.resolve(certificateFile), pkcs11Uri };
}

async function access(
  server: string,
  username: string | undefined,
  passwordFile: string | undefined,
  caFile: string | undefined,
): Promise<RegistryAccess> {
  if ((username === undefined) !== (passwordFile === undefined)) {
    throw new Error("--username and --password-file belong together: give both or none");
  }
  return {
    server,
    ...(username === undefined
      ? {}
      : { username, password: (await readOption("--password-file", passwordFile!)).trimEnd() }),
    ...(caFile === undefined ? {} : { ca: await readOption("--ca", caFile) }),
  };
}

async function readOption(option: string, file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new Error(`${option}: ${file} cannot be read: ${(error as Error).message}`);
  }
}

/** Runs with progress on standard error; SIGINT and SIGTERM end it early, and the next run goes on from there. */
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
      checkpoint: async () => undefined,
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
