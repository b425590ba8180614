/**
 * Requests to one repository of a registry: https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
 * Credentials by basic authentication or, where the registry requires it, by a token that is kept for the requests that
 * follow: https://distribution.github.io/distribution/spec/auth/token/
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { rootCertificates } from "node:tls";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { apiLocation } from "../../../shared/image-reference.js";
import type { RegistryAccess } from "../../backends/index.js";
import { challenges } from "./headers.js";

export interface RegistryRequest {
  method: string;
  /** Path below the server, or an address that the registry gave. */
  path: string;
  headers?: Record<string, string>;
  /** Sent whole; a stream is made anew when the request has to be repeated with a token. */
  body?: Buffer | (() => Readable);
  signal?: AbortSignal | undefined;
}

export interface RegistryAnswer {
  /** Where the answer is from, after redirects. */
  url: URL;
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** A connection that is silent for this long is closed, milliseconds. */
const silence = 15_000;
/** The same for the upload of a blob, which the registry reads as a whole before it answers. */
const silenceAfterUpload = 300_000;
/** How many redirects are followed: registries of clouds keep their blobs elsewhere. */
const maximumRedirects = 3;
/** Bytes of a manifest or other document at most; registries may refuse larger ones. */
const maximumDocument = 8 * 1024 * 1024;

/** https://distribution.github.io/distribution/spec/auth/token/#token-response-fields */
const tokenSchema = object({ token: v.nullish(v.string()), access_token: v.nullish(v.string()) });

export class RegistryConnection {
  private readonly agent: Agent;
  private readonly origin: string;
  private authorization: string | undefined;

  constructor(readonly access: RegistryAccess) {
    const { ca, username, password } = access;
    this.origin = `https://${apiLocation(access.server, "").host}`;
    this.agent = new Agent({ keepAlive: true, ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }) });
    if (username !== undefined) {
      this.authorization = `Basic ${Buffer.from(`${username}:${password ?? ""}`).toString("base64")}`;
    }
  }

  /** Ends what is kept open for further requests. */
  close(): void {
    this.agent.destroy();
  }

  /** Sends a request and reads the whole answer. */
  async ask(options: RegistryRequest): Promise<RegistryAnswer> {
    const { response, url } = await this.opened(options);
    try {
      return { url, status: response.statusCode ?? 0, headers: response.headers, body: await this.read(response) };
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new Error(`the registry ${this.access.server} broke off: ${(error as Error).message}`);
    }
  }

  /**
   * Sends a request; the answer's body is the caller's to read. Redirects of GET and HEAD are followed, without
   * credentials: the address itself is the permission.
   *
   * @throws when the registry does not answer.
   */
  async open(options: RegistryRequest): Promise<IncomingMessage> {
    return (await this.opened(options)).response;
  }

  private async opened(options: RegistryRequest): Promise<{ response: IncomingMessage; url: URL }> {
    let url = new URL(options.path, this.origin);
    let response = await this.authorized(url, options);
    for (let redirects = 0; [301, 302, 303, 307, 308].includes(response.statusCode ?? 0); redirects++) {
      if (options.method !== "GET" && options.method !== "HEAD") return { response, url };
      response.resume();
      const { location } = response.headers;
      if (location === undefined) throw new Error(`registry: ${url.href} redirects without saying where to`);
      url = new URL(location, url);
      if (redirects === maximumRedirects || url.protocol !== "https:") {
        throw new Error(
          `registry: ${this.access.server} redirects ${options.path} to ${url.origin}, which is not followed`,
        );
      }
      response = await this.send(url, options, undefined);
    }
    return { response, url };
  }

  private async authorized(url: URL, options: RegistryRequest): Promise<IncomingMessage> {
    if (url.protocol !== "https:") throw new Error(`registry: ${url.origin} is not asked, as it is not https`);
    // A registry may send uploads to another server; the credentials stay with this one.
    if (url.host !== new URL(this.origin).host) return this.send(url, options, undefined);
    const response = await this.send(url, options, this.authorization);
    if (response.statusCode !== 401) return response;
    const bearer = await this.token(response.headers["www-authenticate"] ?? "", options.signal);
    if (bearer === undefined) return response;
    response.resume();
    this.authorization = `Bearer ${bearer}`;
    return this.send(url, options, this.authorization);
  }

  /** Fetches the token that one of the challenges asks for; undefined when none does. */
  private async token(header: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const bearer = challenges(header).find(({ scheme, parameters }) => scheme === "bearer" && parameters["realm"]);
    if (bearer === undefined || !URL.canParse(bearer.parameters["realm"]!)) return undefined;
    const url = new URL(bearer.parameters["realm"]!);
    // Over anything but TLS the credentials would be in clear.
    if (url.protocol !== "https:") return undefined;
    for (const name of ["service", "scope"]) {
      const value = bearer.parameters[name];
      if (value !== undefined) url.searchParams.set(name, value);
    }
    const { username, password } = this.access;
    const basic =
      username === undefined ? undefined : `Basic ${Buffer.from(`${username}:${password ?? ""}`).toString("base64")}`;
    const response = await this.send(url, { method: "GET", path: url.pathname, signal }, basic);
    const body = await this.read(response);
    if (response.statusCode !== 200) return undefined;
    const answer = decode(tokenSchema, body, `registry: ${url.origin}${url.pathname}`);
    return answer.token || answer.access_token || undefined;
  }

  private send(url: URL, options: RegistryRequest, authorization: string | undefined): Promise<IncomingMessage> {
    const { method, body, signal } = options;
    return new Promise((resolve, reject) => {
      const call = request(url, {
        method,
        agent: this.agent,
        headers: { ...options.headers, ...(authorization === undefined ? {} : { authorization }) },
        ...(signal === undefined ? {} : { signal }),
        timeout: typeof body === "function" ? silenceAfterUpload : silence,
      });
      let isOver = false;
      const failed = (error: NodeJS.ErrnoException) => {
        // The request and the stream of its body both report the same failure.
        if (isOver) return;
        isOver = true;
        if (signal?.aborted) return reject(signal.reason as Error);
        // The registry closed an idle connection at the moment of its reuse.
        if (call.reusedSocket && error.code === "ECONNRESET") return resolve(this.send(url, options, authorization));
        reject(new Error(`the registry ${this.access.server} does not answer: ${error.message}`));
      };
      call.on("response", resolve);
      call.on("timeout", () => call.destroy(new Error("it said nothing for too long")));
      call.on("error", failed);
      if (typeof body !== "function") return call.end(body);
      const source = body();
      source.once("error", reject);
      pipeline(source, call).catch(failed);
    });
  }

  private async read(response: IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maximumDocument) {
        response.destroy();
        throw new Error(`registry: ${this.access.server} answers with more than ${maximumDocument} bytes`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}
