/** For tests: a registry in front of another, that breaks off where a test wants it, and may have the referrers API. */
import { Agent, createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { makeRegistryCertificates } from "../../certificates/registry-certificate.js";
import type { RegistryAccess } from "../../../backends/index.js";
import { digestOf } from "../../registry/digest.js";
import type { Descriptor } from "../../registry/repository.js";

export interface ProxyBehaviour {
  /**
   * Called for each request. `before`: the connection breaks off before the registry hears of it; `after`: once the
   * registry has done it, before the answer.
   */
  breakOff?: (method: string) => "before" | "after" | undefined;
  /** Lists what refers to a manifest by itself, as newer registries do. */
  listsReferrers?: boolean;
}

export class RegistryProxy {
  behaviour: ProxyBehaviour = {};
  private readonly listed = new Map<string, Descriptor[]>();

  private constructor(
    readonly access: RegistryAccess,
    readonly stop: () => Promise<void>,
  ) {}

  static async start(behind: RegistryAccess): Promise<RegistryProxy> {
    const { authority, certificate, key } = await makeRegistryCertificates("proxy");
    const server = createServer({ cert: certificate, key });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const agent = new Agent({ keepAlive: true, ca: behind.ca });
    const proxy = new RegistryProxy({ ...behind, server: `127.0.0.1:${port}`, ca: authority }, async () => {
      server.closeAllConnections();
      agent.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
    server.on("request", (incoming, outgoing) => {
      const end = proxy.behaviour.breakOff?.(incoming.method ?? "");
      if (end === "before") return void incoming.socket.destroy();
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("end", () => {
        const body = Buffer.concat(chunks);
        const { method, url = "", headers } = incoming;
        const referrersOf = /\/referrers\/(sha256:[0-9a-f]{64})$/.exec(url)?.[1];
        if (referrersOf !== undefined && proxy.behaviour.listsReferrers) {
          outgoing.end(JSON.stringify({ manifests: proxy.listed.get(referrersOf) ?? [] }));
          return;
        }
        const forwarded = request(`https://${behind.server}${url}`, { method, headers, agent });
        forwarded.on("response", (answer) => {
          if (end === "after") {
            answer.resume();
            answer.on("end", () => incoming.socket.destroy());
            return;
          }
          const subject = proxy.behaviour.listsReferrers ? subjectOf(method, url, body) : undefined;
          if (subject !== undefined && answer.statusCode === 201) {
            proxy.list(subject, body);
            outgoing.setHeader("OCI-Subject", subject);
          }
          // Where uploads go on: through the proxy as well.
          const location = answer.headers.location?.replace(behind.server, `127.0.0.1:${port}`);
          outgoing.writeHead(answer.statusCode ?? 0, { ...answer.headers, ...(location ? { location } : {}) });
          answer.pipe(outgoing);
        });
        forwarded.on("error", () => incoming.socket.destroy());
        forwarded.end(body);
      });
    });
    return proxy;
  }

  private list(subject: string, bytes: Buffer): void {
    const { mediaType, artifactType } = JSON.parse(bytes.toString()) as Descriptor;
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length, artifactType: artifactType ?? "" };
    const others = (this.listed.get(subject) ?? []).filter(({ digest }) => digest !== descriptor.digest);
    this.listed.set(subject, [...others, descriptor]);
  }
}

function subjectOf(method: string | undefined, url: string, body: Buffer): string | undefined {
  if (method !== "PUT" || !url.includes("/manifests/")) return undefined;
  return (JSON.parse(body.toString()) as { subject?: Descriptor }).subject?.digest;
}
