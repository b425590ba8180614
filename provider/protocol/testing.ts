/** For tests: a client that speaks to the provider over gRPC as the engine does, and the engine's Log service. */
import { credentials, Server, ServerCredentials, type ServiceError } from "@grpc/grpc-js";
import { EngineService } from "@pulumi/pulumi/proto/engine_grpc_pb.js";
import type { LogRequest } from "@pulumi/pulumi/proto/engine_pb.js";
import { ResourceProviderClient } from "@pulumi/pulumi/proto/provider_grpc_pb.js";
import * as rpc from "@pulumi/pulumi/proto/provider_pb.js";
import { Status } from "@pulumi/pulumi/proto/status_pb.js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb.js";
import { Struct } from "google-protobuf/google/protobuf/struct_pb.js";
import type { Properties } from "./resource.js";
import { decode, encode, SecretPaths, type Decoded, type Path } from "./marshal.js";
import type { ProviderOptions } from "./provider.js";
import { serve, type RunningProvider } from "./serve.js";

export interface LogLine {
  urn: string;
  message: string;
  severity: number;
  ephemeral: boolean;
}

/** An engine that only records messages. */
export class FakeEngine {
  readonly lines: LogLine[] = [];
  private readonly server = new Server();
  address = "";

  async start(): Promise<this> {
    this.server.addService(EngineService, {
      log: (call: { request: LogRequest }, callback: (error: null, response: Empty) => void) => {
        const { request } = call;
        this.lines.push({
          urn: request.getUrn(),
          message: request.getMessage(),
          severity: request.getSeverity(),
          ephemeral: request.getEphemeral(),
        });
        callback(null, new Empty());
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      this.server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    this.address = `127.0.0.1:${port}`;
    return this;
  }

  stop(): void {
    this.server.forceShutdown();
  }
}

export class TestClient {
  private constructor(
    readonly raw: ResourceProviderClient,
    readonly provider: RunningProvider,
    readonly engine: FakeEngine,
  ) {}

  /** A client of a new provider that is configured with `configuration`. */
  static async start<B>(
    options: Omit<ProviderOptions<B>, "engineAddress">,
    configuration: Properties = { backend: "file:///backend" },
  ): Promise<TestClient> {
    const engine = await new FakeEngine().start();
    const provider = await serve({ ...options, engineAddress: engine.address });
    const raw = new ResourceProviderClient(`127.0.0.1:${provider.port}`, credentials.createInsecure());
    const client = new TestClient(raw, provider, engine);
    const request = new rpc.ConfigureRequest();
    request.setArgs(encode(configuration));
    await client.call<rpc.ConfigureRequest, rpc.ConfigureResponse>("configure", request);
    return client;
  }

  async stop(): Promise<void> {
    this.raw.close();
    await this.provider.close();
    this.engine.stop();
  }

  call<Request, Response>(method: keyof ResourceProviderClient, request: Request): Promise<Response> {
    return new Promise((resolve, reject) => {
      const unary = this.raw[method] as unknown as (
        request: Request,
        callback: (error: ServiceError | null, response: Response) => void,
      ) => void;
      unary.call(this.raw, request, (error, response) => (error ? reject(error) : resolve(response)));
    });
  }

  static urn(type: string, name = "thing"): string {
    return `urn:pulumi:dev::shop::${type}::${name}`;
  }

  async check(
    type: string,
    inputs: Properties,
    options: { olds?: Properties; secrets?: Path[] } = {},
  ): Promise<{ inputs: Decoded; failures: { property: string; reason: string }[] }> {
    const request = new rpc.CheckRequest();
    request.setUrn(TestClient.urn(type));
    request.setOlds(encode(options.olds ?? {}));
    request.setNews(encode(inputs, pathsOf(options.secrets)));
    const response = await this.call<rpc.CheckRequest, rpc.CheckResponse>("check", request);
    return {
      inputs: decode(response.getInputs()),
      failures: response.getFailuresList().map((one) => ({ property: one.getProperty(), reason: one.getReason() })),
    };
  }

  async diff(
    type: string,
    id: string,
    olds: { inputs: Properties; outputs: Properties },
    news: Properties,
    ignoreChanges: string[] = [],
  ): Promise<rpc.DiffResponse> {
    const request = new rpc.DiffRequest();
    request.setUrn(TestClient.urn(type));
    request.setId(id);
    request.setOldInputs(encode(olds.inputs));
    request.setOlds(encode(olds.outputs));
    request.setNews(encode(news));
    request.setIgnorechangesList(ignoreChanges);
    return this.call("diff", request);
  }

  async create(
    type: string,
    inputs: Properties,
    options: { preview?: boolean; timeout?: number; secrets?: Path[] } = {},
  ): Promise<{ id: string; outputs: Decoded }> {
    const request = new rpc.CreateRequest();
    request.setUrn(TestClient.urn(type));
    request.setProperties(encode(inputs, pathsOf(options.secrets)));
    request.setPreview(options.preview ?? false);
    request.setTimeout(options.timeout ?? 0);
    const response = await this.call<rpc.CreateRequest, rpc.CreateResponse>("create", request);
    return { id: response.getId(), outputs: decode(response.getProperties()) };
  }

  async read(
    type: string,
    id: string,
    olds: { inputs?: Properties; outputs?: Properties } = {},
  ): Promise<{ id: string; inputs: Decoded; outputs: Decoded }> {
    const request = new rpc.ReadRequest();
    request.setUrn(TestClient.urn(type));
    request.setId(id);
    if (olds.inputs) request.setInputs(encode(olds.inputs));
    if (olds.outputs) request.setProperties(encode(olds.outputs));
    const response = await this.call<rpc.ReadRequest, rpc.ReadResponse>("read", request);
    return { id: response.getId(), inputs: decode(response.getInputs()), outputs: decode(response.getProperties()) };
  }

  async update(
    type: string,
    id: string,
    olds: { inputs: Properties; outputs: Properties },
    news: Properties,
    preview = false,
  ): Promise<Decoded> {
    const request = new rpc.UpdateRequest();
    request.setUrn(TestClient.urn(type));
    request.setId(id);
    request.setOldInputs(encode(olds.inputs));
    request.setOlds(encode(olds.outputs));
    request.setNews(encode(news));
    request.setPreview(preview);
    return decode((await this.call<rpc.UpdateRequest, rpc.UpdateResponse>("update", request)).getProperties());
  }

  async delete(type: string, id: string, olds: { inputs: Properties; outputs: Properties }): Promise<void> {
    const request = new rpc.DeleteRequest();
    request.setUrn(TestClient.urn(type));
    request.setId(id);
    request.setOldInputs(encode(olds.inputs));
    request.setProperties(encode(olds.outputs));
    await this.call("delete", request);
  }
}

function pathsOf(paths: Path[] = []): SecretPaths {
  const secrets = new SecretPaths();
  for (const path of paths) secrets.add(path);
  return secrets;
}

/** The detail of a partial failure, as the engine finds it in the error's trailers. */
export function initFailure(error: ServiceError): { id: string; reasons: string[]; outputs: Decoded } | undefined {
  const [raw] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(raw)) return undefined;
  const any = Status.deserializeBinary(raw).getDetailsList()[0];
  const detail = any && rpc.ErrorResourceInitFailed.deserializeBinary(any.getValue_asU8());
  if (!detail) return undefined;
  return {
    id: detail.getId(),
    reasons: detail.getReasonsList(),
    outputs: decode(detail.getProperties() ?? new Struct()),
  };
}
