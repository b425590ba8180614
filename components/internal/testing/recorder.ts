/**
 * Pulumi's mocks, with a record of what the engine would be asked: mocks alone show neither parents nor options, and
 * take the marks off secrets.
 */
import * as pulumi from "@pulumi/pulumi";

/** One resource as a program registers it. */
export interface Registration {
  urn: string;
  type: string;
  name: string;
  /** URN's last part of the parent; absent for the stack's own children. */
  parent?: string;
  /** Secrets are `{ "[secret]": value }`, what is not known yet is `"[unknown]"`. */
  inputs: Record<string, unknown>;
  /** Options that differ from the default. */
  options: Record<string, unknown>;
}

const secretSignature = "4dabf18193072939515e22adb298388d";
const unknownValue = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

interface RegisterRequest {
  getType(): string;
  getName(): string;
  getParent(): string;
  getObject(): { toJavaScript(): Record<string, unknown> };
  getProtect(): boolean | undefined;
  getProvider(): string;
  getProvidersMap(): { toObject(keep: boolean): [string, string][] };
  getDeletebeforereplace(): boolean;
  getDeletedwith(): string;
  getVersion(): string;
  getReplaceonchangesList(): string[];
  getAdditionalsecretoutputsList(): string[];
  getCustom(): boolean;
  getCustomtimeouts():
    { toObject(): { create: string; update: string; pb_delete?: string; delete?: string } } | undefined;
  getAliasesList(): { toObject(): unknown }[];
}

interface Monitor {
  newUrn(parent: string, type: string, name: string): string;
  registerResource(request: RegisterRequest, callback: unknown): Promise<void>;
}

/** What a mocked resource answers: its id and outputs beside its inputs. */
export type Answer = (registration: { type: string; name: string }) => Record<string, unknown>;

/** Starts a program's world anew. */
export async function record(options: {
  answer: Answer;
  preview?: boolean;
  stack?: string;
  config?: Record<string, string>;
}): Promise<Registration[]> {
  const registrations: Registration[] = [];
  pulumi.runtime.setAllConfig(options.config ?? {});
  await pulumi.runtime.setMocks(
    {
      call: () => ({}),
      newResource: ({ type, name, inputs, custom }) => ({
        id: custom && !options.preview ? `${name}-id` : undefined,
        state: { ...(inputs as object), ...(options.preview ? {} : options.answer({ type, name })) },
      }),
    },
    "palisade",
    options.stack ?? "test",
    options.preview ?? false,
  );
  const monitor = pulumi.runtime.getMonitor() as unknown as Monitor;
  const register = monitor.registerResource.bind(monitor);
  monitor.registerResource = async (request, callback) => {
    registrations.push(registration(request, monitor));
    await register(request, callback);
  };
  return registrations;
}

function registration(request: RegisterRequest, monitor: Monitor): Registration {
  const parent = lastPart(request.getParent());
  const aliases = request.getAliasesList().map((alias) => alias.toObject());
  const options = {
    version: request.getVersion(),
    protect: request.getProtect(),
    deleteBeforeReplace: request.getDeletebeforereplace(),
    deletedWith: lastPart(request.getDeletedwith()),
    provider: request.getProvider() ? lastPart(request.getProvider().replace(/::[^:]*$/, "")) : undefined,
    aliases: given(aliases),
    customTimeouts: timeouts(request),
    replaceOnChanges: given(request.getReplaceonchangesList()),
    additionalSecretOutputs: given(request.getAdditionalsecretoutputsList()),
  };
  return {
    urn: monitor.newUrn(request.getParent(), request.getType(), request.getName()),
    type: request.getType(),
    name: request.getName(),
    ...(parent ? { parent } : {}),
    inputs: readable(request.getObject().toJavaScript()) as Record<string, unknown>,
    options: Object.fromEntries(Object.entries(options).filter(([, value]) => Boolean(value))),
  };
}

/** Absent when none is set. */
function timeouts(request: RegisterRequest): object | undefined {
  const found = request.getCustomtimeouts()?.toObject();
  if (!found) return undefined;
  const { create, update, delete: removal = found.pb_delete ?? "" } = found;
  return create || update || removal ? { create, update, delete: removal } : undefined;
}

function given<T>(list: T[]): T[] | undefined {
  return list.length > 0 ? list : undefined;
}

function lastPart(urn: string): string | undefined {
  return urn === "" ? undefined : urn.split("::").slice(2).join("::");
}

function readable(value: unknown): unknown {
  if (value === unknownValue) return "[unknown]";
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== "object" || value === null) return value;
  const content = value as Record<string, unknown>;
  if (content[secretSignature] !== undefined && "value" in content) return { "[secret]": readable(content["value"]) };
  return Object.fromEntries(
    Object.entries(content)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, readable(inner)]),
  );
}

/** The value of an output, once it is known. */
export function valueOf<T>(output: pulumi.Output<T>): Promise<T | undefined> {
  return (output as unknown as { promise(): Promise<T | undefined> }).promise();
}

/** An output that fails does so in each of its promises; all but the awaited one are of no interest. */
export function quiet<T>(output: pulumi.Output<T>): pulumi.Output<T> {
  const all = output as unknown as Record<"isKnown" | "isSecret" | "allResources" | "promise", unknown>;
  const promises = [all.isKnown, all.isSecret, (all.allResources as () => unknown)(), (all.promise as () => unknown)()];
  for (const part of promises) if (part instanceof Promise) part.catch(() => undefined);
  return output;
}

/** Waits until everything that the program has asked for has been registered. */
export async function settled(): Promise<void> {
  await pulumi.runtime.disconnect();
}
