import { Server, ServerCredentials } from "@grpc/grpc-js";
import { ResourceProviderService } from "@pulumi/pulumi/proto/provider_grpc_pb.js";
import { Provider, type ProviderOptions } from "./provider.js";

export interface RunningProvider {
  /** On 127.0.0.1. */
  port: number;
  /** True while no operation is in flight. */
  readonly idle: boolean;
  /** Aborts the operations in flight. The provider still serves. */
  cancel(): void;
  /** Aborts the operations in flight, waits a little for their end, and stops serving. */
  close(): Promise<void>;
}

/** The engine waits five seconds between its signal and a kill. */
const closeMilliseconds = 4_000;

/** Serves the provider on a free port of 127.0.0.1, for the engine on this machine only. */
export async function serve<B>(options: ProviderOptions<B>): Promise<RunningProvider> {
  const provider = new Provider(options);
  const server = new Server({
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    // A partial failure carries the resource's state in the call's trailers.
    "grpc.max_metadata_size": 1 << 20,
  });
  server.addService(ResourceProviderService, provider.service);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    port,
    get idle() {
      return provider.operations.idle;
    },
    cancel: () => provider.operations.cancel(),
    async close() {
      provider.operations.cancel();
      await provider.operations.settled(closeMilliseconds);
      server.forceShutdown();
      provider.log.close();
    },
  };
}
