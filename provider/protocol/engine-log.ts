/**
 * Messages to the user. The engine's Log service shows them at the resource's row, while a plugin's own output is
 * invisible.
 */
import { credentials } from "@grpc/grpc-js";
import { EngineClient } from "@pulumi/pulumi/proto/engine_grpc_pb.js";
import { LogRequest, LogSeverity } from "@pulumi/pulumi/proto/engine_pb.js";
import type { Operation } from "../backends/index.js";

export type Severity = Parameters<Operation["log"]>[0];

const severities: Record<Severity, LogSeverity> = {
  debug: LogSeverity.DEBUG,
  info: LogSeverity.INFO,
  warning: LogSeverity.WARNING,
  error: LogSeverity.ERROR,
};

export class EngineLog {
  private client: EngineClient | undefined;
  private last: Promise<void> = Promise.resolve();

  constructor(address?: string) {
    if (address) this.connect(address);
  }

  /** Connects to another engine, e.g. in a test that keeps the provider attached over several runs. */
  connect(address: string): void {
    this.client?.close();
    this.client = new EngineClient(address, credentials.createInsecure());
  }

  /** Never fails: a message that cannot be delivered must not break the operation that it belongs to. */
  log(urn: string, severity: Severity, message: string, ephemeral = false): void {
    const client = this.client;
    if (!client) return;
    const request = new LogRequest();
    request.setUrn(urn);
    request.setSeverity(severities[severity]);
    request.setMessage(message);
    request.setEphemeral(ephemeral);
    // Sent one after the other, because gRPC does not keep the order of calls.
    this.last = this.last.then(
      () =>
        new Promise((resolve) => {
          client.log(request, { deadline: Date.now() + 5_000 } as never, () => resolve());
        }),
    );
  }

  /** Resolves when each message so far is delivered or given up. */
  flush(): Promise<void> {
    return this.last;
  }

  close(): void {
    this.client?.close();
    this.client = undefined;
  }
}
