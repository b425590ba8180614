/** The protocol, over real gRPC, with a resource whose behaviour each test sets. */
import { status, type ServiceError } from "@grpc/grpc-js";
import { GetSchemaRequest, type GetSchemaResponse } from "@pulumi/pulumi/proto/provider_pb.js";
import type { PluginInfo } from "@pulumi/pulumi/proto/plugin_pb.js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Backends, Operation } from "../backends/index.js";
import { PropertyError } from "../backends/errors.js";
import { PartialFailure, unknown, type Properties, type Resource } from "./resource.js";
import { schemaText } from "../schema/schema.js";
import type { Configuration } from "./provider.js";
import { initFailure, TestClient } from "./testing.js";

const type = "palisade:index:Registry";

/** What create does in the test at hand. */
let create: (inputs: Properties, op: Operation, preview: boolean) => Promise<Properties>;
let configured: Configuration[];

const resource: Resource = {
  type,
  defaultTimeouts: { create: 30, update: 30, delete: 30 },
  check: async (_context, { inputs, oldInputs }) => ({
    inputs: { ...inputs, port: inputs["port"] === "wrong" ? unknown : (inputs["port"] ?? 0) },
    failures:
      inputs["port"] === "wrong"
        ? [{ property: "port", reason: `"${String(inputs["note"])}" or ${String(oldInputs?.["port"])}` }]
        : [],
  }),
  diff: () => [],
  create: async (_context, { inputs, op, preview }) => ({
    id: preview ? "" : "id",
    outputs: await create(inputs, op, preview),
  }),
  read: async (_context, { id }) =>
    id === "gone" ? undefined : { id, inputs: { port: 1 }, outputs: { port: 1, password: "hidden" } },
  update: async (_context, { inputs, op, preview }) => create(inputs, op, preview),
  delete: async (_context, { inputs, op }) => void (await create(inputs, op, false)),
};

describe("the provider's server", () => {
  let client: TestClient;
  beforeEach(async () => {
    create = async (inputs) => inputs;
    configured = [];
    client = await TestClient.start(
      {
        backends: (configuration) => {
          configured.push(configuration);
          return {} as Backends;
        },
        resources: [resource],
        schema: schemaText,
      },
      { backend: "file:///backend", stateDirectory: "/state" },
    );
  });
  afterEach(() => client.stop());

  const failure = async (call: Promise<unknown>): Promise<ServiceError> => {
    try {
      await call;
    } catch (error) {
      return error as ServiceError;
    }
    throw new Error("the call succeeded");
  };

  it("serves schema and version", async () => {
    const schema = await client.call<GetSchemaRequest, GetSchemaResponse>("getSchema", new GetSchemaRequest());
    expect(schema.getSchema()).toBe(schemaText);
    const info = await client.call<Empty, PluginInfo>("getPluginInfo", new Empty());
    expect(info.getVersion()).toBe((JSON.parse(schemaText) as { version: string }).version);
  });

  it("hands its configuration to the backends, once", () => {
    expect(configured).toEqual([{ stateDirectory: "/state", cacheDirectory: undefined }]);
  });

  it("gives Check the old inputs only when there are any, and keeps secrets out of reasons", async () => {
    const first = await client.check(type, { port: "wrong", note: "canary" }, { secrets: [["note"]] });
    expect(first.failures).toEqual([{ property: "port", reason: '"[secret]" or undefined' }]);
    const second = await client.check(type, { port: "wrong", note: "x" }, { olds: { port: 7 } });
    expect(second.failures[0]?.reason).toContain("7");
  });

  it("answers a failed Check with the inputs as they were given: an update accepts no unknown value", async () => {
    const { inputs } = await client.check(type, { port: "wrong", note: "canary" }, { secrets: [["note"]] });
    expect(inputs.properties).toEqual({ port: "wrong", note: "canary" });
    expect(inputs.secrets.has(["note"])).toBe(true);
  });

  it("passes unknown values through Check and keeps secrets secret", async () => {
    const { inputs } = await client.check(type, { port: unknown, note: "s" }, { secrets: [["note"]] });
    expect(inputs.properties).toEqual({ port: unknown, note: "s" });
    expect(inputs.secrets.has(["note"])).toBe(true);
    expect(inputs.secrets.has(["port"])).toBe(false);
  });

  it("tells an operation its owner and its deadline", async () => {
    let seen: Operation | undefined;
    create = async (inputs, op) => {
      seen = op;
      return inputs;
    };
    await client.create(type, {}, { timeout: 100 });
    expect(seen?.owner).toEqual({
      backend: "file:///backend",
      project: "shop",
      stack: "dev",
      urn: TestClient.urn(type),
    });
    expect(seen!.deadline - Date.now()).toBeGreaterThan(95_000);
    expect(seen!.deadline - Date.now()).toBeLessThanOrEqual(100_000);
    await client.create(type, {});
    expect(seen!.deadline - Date.now()).toBeLessThanOrEqual(30_000);
  });

  it("marks outputs secret by the schema and by the inputs", async () => {
    create = async (inputs) => ({ ...inputs, password: "p", server: "s" });
    const { outputs } = await client.create(type, { note: "n" }, { secrets: [["note"]] });
    expect(outputs.properties).toEqual({ note: "n", password: "p", server: "s" });
    expect(["note", "password", "server"].map((name) => outputs.secrets.has([name]))).toEqual([true, true, false]);
  });

  it("returns what is known in preview", async () => {
    create = async (_inputs, _op, preview) => ({ preview, server: unknown });
    const { id, outputs } = await client.create(type, {}, { preview: true });
    expect(id).toBe("");
    expect(outputs.properties).toEqual({ preview: true, server: unknown });
  });

  it("keeps what exists when a create fails half-way", async () => {
    create = async () => {
      throw new PartialFailure("half", { server: "s", password: "canary" }, ["it says canary-note"]);
    };
    const error = await failure(client.create(type, { note: "canary-note" }, { secrets: [["note"]] }));
    const detail = initFailure(error);
    expect(detail?.id).toBe("half");
    expect(detail?.reasons).toEqual(["it says [secret]"]);
    expect(detail?.outputs.secrets.has(["password"])).toBe(true);
  });

  it("keeps secrets out of errors, progress and log", async () => {
    create = async (_inputs, op) => {
      op.status("status canary-note");
      op.log("warning", "log canary-note");
      throw new Error("error canary-note");
    };
    const error = await failure(client.create(type, { note: "canary-note" }, { secrets: [["note"]] }));
    expect(error.details).toBe("error [secret]");
    expect(client.engine.lines.map(({ message, ephemeral, urn }) => [message, ephemeral, urn])).toEqual([
      ["status [secret]", true, TestClient.urn(type)],
      ["log [secret]", false, TestClient.urn(type)],
    ]);
  });

  const shownOf = async (thrown: unknown): Promise<string> => {
    create = async () => {
      throw thrown;
    };
    const error = await failure(client.create(type, { note: "canary\u0000word" }, { secrets: [["note"]] }));
    expect(error.message).toContain(error.details);
    return `${error.details}\n${initFailure(error)?.reasons.join("\n") ?? ""}`;
  };

  it.each<[string, () => unknown]>([
    ["a message", () => new Error("canary\u0000word is wrong")],
    ["the stack of a mistake, escaped", () => new TypeError('Received "canary\\x00word" is wrong')],
    ["the stack alone", () => Object.assign(new TypeError("x"), { stack: "TypeError: canary\u0000word is wrong" })],
    ["what caused it", () => new RangeError("x is wrong", { cause: new Error("canary\u0000word") })],
    ["a property's error", () => new PropertyError([{ property: "port", reason: '"canary\\u0000word" is wrong' }])],
    ["a partial failure", () => new PartialFailure("id", {}, ["canary\u0000word is wrong"])],
    ["a text that is thrown", () => "canary\u0000word is wrong"],
    ["an error of gRPC", () => ({ code: status.INTERNAL, details: "canary\u0000word is wrong" })],
  ])("shows no secret of %s", async (_name, thrown) => {
    const shown = await shownOf(thrown());
    expect(shown).toContain("is wrong");
    expect(shown).not.toMatch(/canary.*word/s);
  });

  it("shows no secret of the outputs of a partial failure", async () => {
    create = async () => {
      throw new PartialFailure("id", { password: "made-password" }, ["made-password is wrong"]);
    };
    const error = await failure(client.create(type, {}));
    expect(initFailure(error)?.reasons).toEqual(["[secret] is wrong"]);
    expect(error.details).toBe("[secret] is wrong");
  });

  it("logs in order and says a status once", async () => {
    create = async (inputs, op) => {
      for (const message of ["a", "a", "b", "a"]) op.status(message);
      return inputs;
    };
    await client.create(type, {});
    expect(client.engine.lines.map(({ message }) => message)).toEqual(["a", "b", "a"]);
  });

  it("answers a property's error with a code that leaves no operation pending", async () => {
    create = async () => {
      throw new PropertyError([{ property: "port", reason: "5000 is in use" }]);
    };
    const error = await failure(client.create(type, {}));
    expect([error.code, error.details]).toEqual([status.INVALID_ARGUMENT, "port: 5000 is in use"]);
  });

  const untilAborted = (op: Operation): Promise<never> =>
    new Promise((_resolve, reject) =>
      op.signal.addEventListener("abort", () => reject(op.signal.reason as Error), { once: true }),
    );

  it("ends what is in flight when it is cancelled, and serves on", async () => {
    create = (_inputs, op) => {
      setImmediate(() => void client.call("cancel", new Empty()));
      return untilAborted(op);
    };
    const error = await failure(client.create(type, {}));
    expect(error.code).toBe(status.CANCELLED);
    create = async (inputs) => inputs;
    expect((await client.create(type, {})).id).toBe("id");
  });

  it("ends what takes longer than its time-out, and says which option gives it more", async () => {
    create = (_inputs, op) => untilAborted(op);
    const error = await failure(client.create(type, {}, { timeout: 0.1 }));
    expect(error.details).toMatch(/create did not come to its end within 0.1 s.*customTimeouts\.create/);
  }, 15_000);

  it("reads an import, and answers an absence with an empty id", async () => {
    const there = await client.read(type, "x");
    expect(there.outputs.secrets.has(["password"])).toBe(true);
    expect((await client.read(type, "gone")).id).toBe("");
  });

  it("knows no other resource", async () => {
    const error = await failure(client.check("palisade:index:Castle", {}));
    expect(error.code).toBe(status.UNIMPLEMENTED);
    expect(error.details).toMatch(/Castle.*Registry/);
  });

  it("finds the resource's own type in the URN of a child", async () => {
    const { failures } = await client.check(`palisade:index:NestedHost$${type}`, {});
    expect(failures).toEqual([]);
  });
});
