/**
 * Pulumi's ResourceProvider service: each call is decoded, passed to its resource, and the result encoded. Knows no
 * resource.
 */
import { status, type handleUnaryCall, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { PluginInfo, type PluginAttach } from "@pulumi/pulumi/proto/plugin_pb.js";
import * as rpc from "@pulumi/pulumi/proto/provider_pb.js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb.js";
import type { Struct } from "google-protobuf/google/protobuf/struct_pb.js";
import type { Backends, Operation } from "../backends/index.js";
import { own } from "../../shared/own-properties.js";
import type { CheckFailure } from "../backends/errors.js";
import { PartialFailure, type PluginFunction, type Properties, type Resource } from "./resource.js";
import { validateConfiguration, type PackageSchema } from "../schema/schema.js";
import { toDiffResponse } from "./difference.js";
import { EngineLog } from "./engine-log.js";
import { partialFailure, rpcError, toRpcError } from "./errors.js";
import { decode, encode, type Decoded, type Path } from "./marshal.js";
import { propagatedSecrets } from "./secret-marks.js";
import { Operations } from "./operations.js";
import { Redactor, secretTexts } from "./redaction.js";
import { secretsOf, type SecretSchema } from "../schema/secrets.js";

/** The provider's configuration. The backends have the defaults. */
export interface Configuration {
  stateDirectory?: string;
  cacheDirectory?: string;
}

/** @typeParam B the backends of the resources */
export interface ProviderOptions<B = Backends> {
  engineAddress?: string;
  /** Called once per Configure. It must not open connections. */
  backends: (configuration: Configuration) => B;
  resources: Resource<B>[];
  /** Functions by token. Default: none. */
  functions?: Record<string, PluginFunction<B>>;
  /** The package schema, JSON. */
  schema: string;
  /**
   * Whether messages may show the value at a secret path, e.g. the address in a connection that is secret as a whole.
   * Default: no.
   */
  isShown?: (path: Path) => boolean;
  /** Whether a replacement deletes first. Default: true, as two machines of one name never exist side by side. */
  deleteBeforeReplace?: boolean;
  /** A hook with which tests end or fail an operation at a named point. */
  checkpoint?: (name: string) => Promise<void>;
}

/** Time-out of a read. Reads are quick by contract, so this ends one whose backend hangs. */
const readSeconds = 120;

/** Time-out of a function. The engine sets none, so this ends one that hangs. */
const functionSeconds = 24 * 60 * 60;

interface Configured<B> {
  backends: B;
  /** Identity of the state backend in ownership markers. */
  backend: string;
}

export class Provider<B = Backends> {
  readonly operations: Operations;
  readonly log: EngineLog;
  private readonly version: string;
  private readonly parsedSchema: SecretSchema & PackageSchema;
  private readonly resources: Map<string, Resource<B>>;
  private configured: Configured<B> | undefined;

  constructor(private readonly options: ProviderOptions<B>) {
    this.log = new EngineLog(options.engineAddress);
    this.operations = new Operations(this.log, options.checkpoint);
    const schema = JSON.parse(options.schema) as SecretSchema & PackageSchema;
    this.version = schema.version;
    this.parsedSchema = schema;
    this.resources = new Map(options.resources.map((resource) => [resource.type, resource]));
  }

  /** The service's methods for grpc-js. */
  get service(): UntypedServiceImplementation {
    return {
      handshake: unary((request: rpc.ProviderHandshakeRequest) => this.handshake(request)),
      getSchema: unary((request: rpc.GetSchemaRequest) => this.getSchema(request)),
      checkConfig: unary((request: rpc.CheckRequest) => this.checkConfig(request)),
      diffConfig: unary((request: rpc.DiffRequest) => this.diffConfig(request)),
      configure: unary((request: rpc.ConfigureRequest) => this.configure(request)),
      check: unary((request: rpc.CheckRequest) => this.check(request)),
      diff: unary((request: rpc.DiffRequest) => this.diff(request)),
      create: unary((request: rpc.CreateRequest) => this.create(request)),
      read: unary((request: rpc.ReadRequest) => this.read(request)),
      update: unary((request: rpc.UpdateRequest) => this.update(request)),
      delete: unary((request: rpc.DeleteRequest) => this.delete(request)),
      invoke: unary((request: rpc.InvokeRequest) => this.invoke(request)),
      cancel: unary(() => {
        this.operations.cancel();
        return new Empty();
      }),
      getPluginInfo: unary(() => {
        const info = new PluginInfo();
        info.setVersion(this.version);
        return info;
      }),
      attach: unary((request: PluginAttach) => {
        this.log.connect(request.getAddress());
        return new Empty();
      }),
    };
  }

  private handshake(request: rpc.ProviderHandshakeRequest): rpc.ProviderHandshakeResponse {
    if (request.getEngineAddress()) this.log.connect(request.getEngineAddress());
    const response = new rpc.ProviderHandshakeResponse();
    response.setAcceptSecrets(true);
    // No resource here has references to resources, or outputs with their dependencies, among its inputs.
    response.setAcceptResources(false);
    response.setAcceptOutputs(false);
    return response;
  }

  private getSchema(request: rpc.GetSchemaRequest): rpc.GetSchemaResponse {
    if (request.getVersion() !== 0) throw new Error(`unknown version of the schema's format: ${request.getVersion()}`);
    const response = new rpc.GetSchemaResponse();
    response.setSchema(this.options.schema);
    return response;
  }

  private checkConfig(request: rpc.CheckRequest): Promise<rpc.CheckResponse> {
    const decoded = decode(request.getNews());
    const redactor = this.redactor([decoded]);
    return redacting(redactor, () => {
      const { version: _version, ...news } = decoded.properties;
      const response = new rpc.CheckResponse();
      response.setInputs(request.getNews());
      response.setFailuresList(toWireFailures(validateConfiguration(this.parsedSchema, news).failures, redactor));
      return response;
    });
  }

  /** A changed configuration never replaces resources. */
  private diffConfig(request: rpc.DiffRequest): rpc.DiffResponse {
    const olds = decode(request.getOldInputs() ?? request.getOlds()).properties;
    const news = decode(request.getNews()).properties;
    const names = [...new Set([...Object.keys(olds), ...Object.keys(news)])];
    const differing = names.filter((name) => JSON.stringify(olds[name]) !== JSON.stringify(news[name]));
    return toDiffResponse(
      differing.map((path) => ({ path, kind: "update", inputDiff: true })),
      request.getIgnorechangesList(),
    );
  }

  private configure(request: rpc.ConfigureRequest): rpc.ConfigureResponse {
    const config = decode(request.getArgs()).properties;
    const text = (name: string): string | undefined => {
      const value = config[name] ?? request.getVariablesMap().get(`palisade:config:${name}`);
      return typeof value === "string" && value !== "" ? value : undefined;
    };
    this.configured = {
      backends: this.options.backends({
        stateDirectory: text("stateDirectory"),
        cacheDirectory: text("cacheDirectory"),
      }),
      backend: text("backend") ?? process.env["PULUMI_BACKEND_URL"] ?? "",
    };
    const response = new rpc.ConfigureResponse();
    response.setAcceptsecrets(true);
    response.setSupportspreview(true);
    response.setAcceptresources(false);
    response.setAcceptoutputs(false);
    return response;
  }

  private async check(request: rpc.CheckRequest): Promise<rpc.CheckResponse> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const { backends } = this.configuration();
    const olds = decode(request.getOlds()).properties;
    const news = decode(request.getNews());
    const redactor = this.redactor([news], isSecret);
    return redacting(redactor, async () => {
      const checked = await resource.check(
        { backends },
        { inputs: news.properties, oldInputs: Object.keys(olds).length ? olds : undefined },
      );
      const response = new rpc.CheckResponse();
      response.setFailuresList(toWireFailures(checked.failures, redactor));
      if (checked.failures.length > 0) {
        // What does not fit is unknown in the checked inputs, and the engine accepts unknown values in previews only.
        response.setInputs(encode(news.properties, news.secrets, isSecret));
        return response;
      }
      const origins = resource.origins?.(news.properties, checked.inputs);
      const secrets = propagatedSecrets([news], checked.inputs, isSecret, undefined, origins);
      response.setInputs(encode(checked.inputs, secrets, isSecret));
      return response;
    });
  }

  private diff(request: rpc.DiffRequest): Promise<rpc.DiffResponse> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const oldInputs = decode(request.getOldInputs());
    const oldOutputs = decode(request.getOlds());
    const inputs = decode(request.getNews());
    return redacting(this.redactor([oldInputs, oldOutputs, inputs], isSecret), () => {
      const differences = resource.diff({
        id: request.getId(),
        oldInputs: oldInputs.properties,
        oldOutputs: oldOutputs.properties,
        inputs: inputs.properties,
      });
      return toDiffResponse(differences, request.getIgnorechangesList(), this.options.deleteBeforeReplace);
    });
  }

  private async create(request: rpc.CreateRequest): Promise<rpc.CreateResponse> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const { backends } = this.configuration();
    const inputs = decode(request.getProperties());
    const marked = (outputs: Properties): Struct =>
      encode(outputs, propagatedSecrets([inputs], outputs, isSecret, resource.derived), isSecret);
    return this.operation(request, "create", resource.defaultTimeouts.create, [inputs], isSecret, async (op) => {
      const result = await this.encodingPartialFailure([inputs], isSecret, marked, () =>
        resource.create({ backends }, { inputs: inputs.properties, preview: request.getPreview(), op }),
      );
      const response = new rpc.CreateResponse();
      response.setId(result.id);
      response.setProperties(marked(result.outputs));
      return response;
    });
  }

  private async read(request: rpc.ReadRequest): Promise<rpc.ReadResponse> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const { backends } = this.configuration();
    const inputs = decode(request.getInputs());
    const outputs = decode(request.getProperties());
    const absent = (decoded: Decoded): Properties | undefined =>
      Object.keys(decoded.properties).length ? decoded.properties : undefined;
    return this.operation(request, "read", readSeconds, [inputs, outputs], isSecret, async (op) => {
      const result = await resource.read(
        { backends },
        { id: request.getId(), inputs: absent(inputs), outputs: absent(outputs), op },
      );
      // An empty id means that the resource does not exist any more.
      const response = new rpc.ReadResponse();
      if (!result) return response;
      const known = [inputs, outputs];
      response.setId(result.id);
      response.setInputs(encode(result.inputs, propagatedSecrets(known, result.inputs, isSecret), isSecret));
      response.setProperties(
        encode(result.outputs, propagatedSecrets(known, result.outputs, isSecret, resource.derived), isSecret),
      );
      return response;
    });
  }

  private async update(request: rpc.UpdateRequest): Promise<rpc.UpdateResponse> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const { backends } = this.configuration();
    const oldInputs = decode(request.getOldInputs());
    const oldOutputs = decode(request.getOlds());
    const inputs = decode(request.getNews());
    const known = [oldInputs, oldOutputs, inputs];
    const marked = (outputs: Properties): Struct =>
      encode(outputs, propagatedSecrets([inputs, oldOutputs], outputs, isSecret, resource.derived), isSecret);
    return this.operation(request, "update", resource.defaultTimeouts.update, known, isSecret, async (op) => {
      const properties = await this.encodingPartialFailure([inputs, oldInputs, oldOutputs], isSecret, marked, () =>
        resource.update(
          { backends },
          {
            id: request.getId(),
            oldInputs: oldInputs.properties,
            oldOutputs: oldOutputs.properties,
            inputs: inputs.properties,
            preview: request.getPreview(),
            op,
          },
        ),
      );
      const response = new rpc.UpdateResponse();
      response.setProperties(marked(properties));
      return response;
    });
  }

  private async delete(request: rpc.DeleteRequest): Promise<Empty> {
    const { resource, isSecret } = this.resource(request.getUrn());
    const { backends } = this.configuration();
    const inputs = decode(request.getOldInputs());
    const outputs = decode(request.getProperties());
    const seconds = resource.defaultTimeouts.delete;
    return this.operation(request, "delete", seconds, [inputs, outputs], isSecret, async (op) => {
      await resource.delete(
        { backends },
        { id: request.getId(), inputs: inputs.properties, outputs: outputs.properties, op },
      );
      return new Empty();
    });
  }

  private async invoke(request: rpc.InvokeRequest): Promise<rpc.InvokeResponse> {
    const token = request.getTok();
    const call = own(this.options.functions, token);
    if (!call) {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- an error of gRPC is a plain object
      throw rpcError(status.UNIMPLEMENTED, `${token}: there is no such function`);
    }
    const { backends } = this.configuration();
    const inputs = decode(request.getArgs());
    // Functions have no URN. Their messages belong to the run as a whole.
    const unnamed = { getUrn: () => "", getTimeout: () => 0 };
    return this.operation(
      unnamed,
      "invoke",
      functionSeconds,
      [inputs],
      () => false,
      async (op) => {
        const { outputs, failures, derived } = await call({ backends }, { inputs: inputs.properties, op });
        const response = new rpc.InvokeResponse();
        response.setReturn(
          encode(
            outputs,
            propagatedSecrets([inputs], outputs, () => false, derived),
          ),
        );
        response.setFailuresList(toWireFailures(failures, this.redactor([inputs])));
        return response;
      },
    );
  }

  /** Runs an operation with its time-out, and with its secrets kept out of every message. */
  private async operation<T>(
    request: { getUrn(): string; getTimeout(): number },
    action: string,
    defaultSeconds: number,
    known: Decoded[],
    isSecret: (path: Path) => boolean,
    body: (op: Operation) => Promise<T>,
  ): Promise<T> {
    const { backend } = this.configuration();
    const redactor = this.redactor(known, isSecret);
    const seconds = request.getTimeout() > 0 ? request.getTimeout() : defaultSeconds;
    try {
      return await redacting(redactor, () =>
        this.operations.run({ urn: request.getUrn(), backend, action, seconds }, (op) =>
          body({
            ...op,
            log: (severity, message) => op.log(severity, redactor.redact(message)),
            status: (message) => op.status(redactor.redact(message)),
          }),
        ),
      );
    } finally {
      // The engine drops messages that arrive after the end of the operation.
      await this.log.flush();
    }
  }

  /**
   * Runs `body`. A PartialFailure that it throws becomes the error with which the engine keeps the resource.
   *
   * @param known properties whose secrets no message shows. The first are the inputs
   * @param marked converts outputs for the wire
   */
  private async encodingPartialFailure<T>(
    known: [Decoded, ...Decoded[]],
    isSecret: (path: Path) => boolean,
    marked: (outputs: Properties) => Struct,
    body: () => Promise<T>,
  ): Promise<T> {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof PartialFailure)) throw error;
      // The reasons are sent beside the message, so they are redacted here and not with the message.
      const outputs = marked(error.outputs);
      const redactor = this.redactor([...known, decode(outputs)], isSecret);
      const [inputs] = known;
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- an error of gRPC is a plain object
      throw partialFailure(
        new PartialFailure(
          error.id,
          error.outputs,
          error.reasons.map((reason) => redactor.redact(reason)),
        ),
        outputs,
        encode(inputs.properties, inputs.secrets, isSecret),
      );
    }
  }

  /** Keeps the secrets of these properties out of messages. */
  private redactor(known: Decoded[], isSecret: (path: Path) => boolean = () => false): Redactor {
    return new Redactor(
      known.flatMap(({ properties, secrets }) => secretTexts(properties, secrets, isSecret, this.options.isShown)),
    );
  }

  private resource(urn: string): { resource: Resource<B>; isSecret: (path: Path) => boolean } {
    // The last of the types in the URN is the resource's own, the others are its parents'.
    const type = urn.split("::")[2]?.split("$").at(-1) ?? "";
    const resource = this.resources.get(type);
    if (!resource) {
      const known = [...this.resources.keys()].join(", ");
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- an error of gRPC is a plain object
      throw rpcError(status.UNIMPLEMENTED, `${type}: there is no such resource; known are ${known}`);
    }
    return { resource, isSecret: secretsOf(this.parsedSchema, type) };
  }

  private configuration(): Configured<B> {
    if (!this.configured) throw new Error("the provider was not configured before it was used");
    return this.configured;
  }
}

function toWireFailures(failures: CheckFailure[], redactor: Redactor): rpc.CheckFailure[] {
  return failures.map(({ property, reason }) => {
    const failure = new rpc.CheckFailure();
    failure.setProperty(property);
    failure.setReason(redactor.redact(reason));
    return failure;
  });
}

/** Runs `body`. An error that it throws is converted for the engine, without secrets. */
async function redacting<T>(redactor: Redactor, body: () => T | Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    const shown = toRpcError(error);
    const text = redactor.redact(shown.details ?? "");
    // eslint-disable-next-line @typescript-eslint/only-throw-error -- an error of gRPC is a plain object
    throw { ...shown, details: text, message: text };
  }
}

/** A method of the service. An error that the handler throws is converted for the engine. */
function unary<Request, Response>(
  handler: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    Promise.resolve()
      .then(() => handler(call.request))
      .then(
        (response) => callback(null, response),
        (error: unknown) => callback(toRpcError(error)),
      );
  };
}
