/** Contents of one repository: reads and writes manifests and blobs. What is read by its digest has that digest. */
import type { Readable } from "node:stream";
import { fitting, ForeignDataError } from "../../../shared/decode.js";
import { apiLocation } from "../../../shared/image-reference.js";
import { shorten } from "../../../shared/text.js";
import type { RegistryAnswer } from "./connection.js";
import { RegistryConnection } from "./connection.js";
import { digestOf } from "./digest.js";
import { descriptorSchema, indexEntries, type DecodedDescriptor } from "./documents.js";
import { mediaTypeOf, nextLink } from "./headers.js";
import { manifestTypes } from "./media-types.js";
import type { RegistryAccess } from "../../backends/index.js";

/** https://github.com/opencontainers/image-spec/blob/main/descriptor.md */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
  platform?: { os: string; architecture: string; variant?: string } | null | undefined;
}

export interface ManifestContent {
  bytes: Buffer;
  mediaType: string;
  digest: string;
}

/** Pages of a list of referrers that are read; the specification's example has 50 entries a page. */
const maximumPages = 100;

export class Repository {
  private readonly connection: RegistryConnection;
  /** Blobs that are known to be in the repository; a registry keeps them while they are requested. */
  private readonly seen = new Set<string>();

  constructor(
    access: RegistryAccess,
    readonly name: string,
    private readonly signal?: AbortSignal,
  ) {
    this.connection = new RegistryConnection(access);
  }

  get server(): string {
    return this.connection.access.server;
  }

  close(): void {
    this.connection.close();
  }

  /**
   * A manifest by tag or digest; undefined when the registry says that it is not there.
   *
   * @throws when the content that it gives for a digest has another digest.
   */
  async manifest(reference: string): Promise<ManifestContent | undefined> {
    const answer = await this.ask("GET", `manifests/${reference}`, { accept: manifestTypes.join(", ") });
    if (answer.status === 404) return undefined;
    this.requireStatus(answer, 200, `manifest ${reference}`);
    const digest = digestOf(answer.body);
    if (reference.includes(":") && digest !== reference) {
      throw new ForeignDataError(
        `registry: ${this.server}/${this.name} gives ${digest} where ${reference} was asked for`,
      );
    }
    return { bytes: answer.body, mediaType: mediaTypeOf(answer.headers["content-type"]), digest };
  }

  /** @returns whether the registry lists the manifest among the referrers of its subject by itself. */
  async putManifest(reference: string, bytes: Buffer, mediaType: string): Promise<boolean> {
    const answer = await this.ask("PUT", `manifests/${reference}`, { "content-type": mediaType }, bytes);
    this.requireStatus(answer, 201, `manifest ${reference}`);
    return answer.headers["oci-subject"] !== undefined;
  }

  async hasBlob(digest: string): Promise<boolean> {
    if (this.seen.has(digest)) return true;
    const answer = await this.ask("HEAD", `blobs/${digest}`);
    if (answer.status === 404) return false;
    this.requireStatus(answer, 200, `blob ${digest}`);
    this.seen.add(digest);
    return true;
  }

  /** A small blob as a whole. */
  async blob(digest: string): Promise<Buffer> {
    const answer = await this.ask("GET", `blobs/${digest}`);
    this.requireStatus(answer, 200, `blob ${digest}`);
    if (digestOf(answer.body) !== digest) {
      throw new ForeignDataError(
        `registry: ${this.server}/${this.name} gives another content than that of blob ${digest}`,
      );
    }
    this.seen.add(digest);
    return answer.body;
  }

  /** A blob as a stream; the caller checks its digest. */
  async openBlob(digest: string): Promise<Readable> {
    const path = this.path(`blobs/${digest}`);
    const response = await this.connection.open({ method: "GET", path, signal: this.signal });
    if (response.statusCode !== 200) response.resume();
    this.requireStatus({ status: response.statusCode ?? 0 }, 200, `blob ${digest}`);
    return response;
  }

  /**
   * Uploads a blob that is not there yet. The registry compares the digest.
   *
   * @returns whether it had to be uploaded.
   */
  async putBlob(blob: { digest: string; size: number }, content: Buffer | (() => Readable)): Promise<boolean> {
    if (await this.hasBlob(blob.digest)) return false;
    const begun = await this.ask("POST", "blobs/uploads/", { "content-length": "0" });
    this.requireStatus(begun, 202, "upload");
    if (begun.headers.location === undefined) {
      throw new Error(`registry: ${begun.url.href} begins an upload without saying where to`);
    }
    const location = new URL(begun.headers.location, begun.url);
    // The registry's own query stays byte for byte: it may be signed.
    location.search += `${location.search ? "&" : "?"}digest=${encodeURIComponent(blob.digest)}`;
    const answer = await this.connection.ask({
      method: "PUT",
      path: location.href,
      headers: { "content-type": "application/octet-stream", "content-length": String(blob.size) },
      body: content,
      signal: this.signal,
    });
    this.requireStatus(answer, 201, `upload of ${blob.digest}`);
    this.seen.add(blob.digest);
    return true;
  }

  /** The registry's own list of manifests that refer to a subject; undefined when it keeps none. */
  async listedReferrers(digest: string): Promise<DecodedDescriptor[] | undefined> {
    const found: DecodedDescriptor[] = [];
    let path = this.path(`referrers/${digest}`);
    for (let page = 1; ; page++) {
      const answer = await this.connection.ask({ method: "GET", path, signal: this.signal });
      if (answer.status === 404 && page === 1) return undefined;
      this.requireStatus(answer, 200, `referrers of ${digest}`);
      found.push(...fitting(descriptorSchema, indexEntries(answer.body, `registry: ${answer.url.href}`)));
      const next = nextLink(answer.headers.link);
      if (next === undefined) return found;
      if (page === maximumPages) throw new Error(`registry: ${path} has more than ${maximumPages} pages`);
      path = new URL(next, answer.url).href;
    }
  }

  private path(below: string): string {
    return `/v2/${apiLocation(this.server, this.name).repository}/${below}`;
  }

  private ask(method: string, below: string, headers: Record<string, string> = {}, body?: Buffer) {
    const request = { method, path: this.path(below), headers, signal: this.signal };
    return this.connection.ask(body === undefined ? request : { ...request, body });
  }

  private requireStatus(
    answer: Pick<RegistryAnswer, "status"> & Partial<RegistryAnswer>,
    expected: number,
    what: string,
  ): void {
    if (answer.status === expected) return;
    const place = `${this.server}/${this.name}`;
    if (answer.status === 401 || answer.status === 403) {
      throw new Error(
        `registry: ${this.server} refuses access to ${this.name} (HTTP ${answer.status}); check username and password`,
      );
    }
    const reason = shorten(answer.body?.toString() ?? "", 500);
    throw new Error(`registry: ${place} answered HTTP ${answer.status} for ${what}${reason && `: ${reason}`}`);
  }
}
