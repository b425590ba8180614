/**
 * The one shape of all resources. The server (`server/`) knows the engine's protocol and nothing of any resource; a resource
 * (`resources/`) knows its backends and nothing of the protocol.
 *
 * Values: plain JavaScript. Secrets have been unwrapped; the server marks outputs secret again at every path that was secret
 * in the inputs and at every property that the schema calls secret. A value that is not known yet, in preview, is `unknown`.
 */
import type { CheckFailure } from "../backends/errors.js";
import type { Backends, Operation } from "../backends/index.js";

class UnknownValue {
  // Keeps the type apart from property bags.
  readonly #unknown = true;
  toJSON(): string {
    return this.#unknown ? "(not known yet)" : "";
  }
}
export type Unknown = UnknownValue;
/** Stands for a value that is not known yet. */
export const unknown: Unknown = new UnknownValue();

export type Value = null | boolean | number | string | Unknown | Value[] | { [name: string]: Value };
export type Properties = { [name: string]: Value };

export function isUnknown(value: unknown): value is Unknown {
  return value === unknown;
}

export interface PropertyDiff {
  /** Path of the property, e.g. `observedContainers[0].state`. */
  path: string;
  kind: "add" | "update" | "delete" | "add-replace" | "update-replace" | "delete-replace";
  /** True: old and new inputs differ; false: the observed state differs from the wanted one. */
  inputDiff: boolean;
}

export interface Context<B = Backends> {
  backends: B;
}

export interface CreateResult {
  id: string;
  outputs: Properties;
}
export interface ReadResult {
  id: string;
  inputs: Properties;
  outputs: Properties;
}

/**
 * Thrown by create and update when the thing exists but is not as it should be: the engine keeps id and outputs, shows the
 * reasons, and the next `up` calls update.
 */
export class PartialFailure extends Error {
  override readonly name = "PartialFailure";
  constructor(
    readonly id: string,
    readonly outputs: Properties,
    readonly reasons: string[],
  ) {
    super(reasons.join("\n"));
  }
}

/** Of lists whose items were sorted, merged or rewritten, by property: which items, by index, each item stands for. */
export type Origins = Readonly<Record<string, readonly (readonly number[])[]>>;

/** Which outputs are made from which inputs. */
export interface Derived {
  outputs: readonly string[];
  /** Inputs of which nothing gets into the outputs. Default: none. */
  exceptInputs?: readonly string[];
}

/** @typeParam B what the resource stands on; Palisade's own resources stand on `Backends` */
export interface Resource<B = Backends> {
  /** Token, e.g. `palisade:index:VirtualMachine`. */
  readonly type: string;
  /**
   * Outputs that are made from all inputs, and which of the inputs are not among what they are made from. Such an output is
   * secret as soon as one of the inputs is, or it was secret before. Default: none.
   */
  readonly derived?: Derived;
  /** Seconds, when the program sets no customTimeouts. */
  readonly defaultTimeouts: { create: number; update: number; delete: number };
  /** Pure and complete: validates, fills in defaults and normalises. Reads no more than local files that are inputs. */
  check(
    context: Context<B>,
    request: { inputs: Properties; oldInputs: Properties | undefined },
  ): Promise<{ inputs: Properties; failures: CheckFailure[] }>;
  /** For a check that sorts, merges or rewrites items of lists: what became of them. The marks of secrets go along. */
  origins?(given: Properties, checked: Properties): Origins;
  /** What differs, in detail; an empty list means no change. Everything that replaces deletes first. */
  diff(request: { id: string; oldInputs: Properties; oldOutputs: Properties; inputs: Properties }): PropertyDiff[];
  /** In preview the outputs hold what can be known and `unknown` elsewhere; the id is empty. */
  create(context: Context<B>, request: { inputs: Properties; preview: boolean; op: Operation }): Promise<CreateResult>;
  /** Inputs and outputs are absent when the resource is imported. `undefined`: proven absent. */
  read(
    context: Context<B>,
    request: { id: string; inputs: Properties | undefined; outputs: Properties | undefined; op: Operation },
  ): Promise<ReadResult | undefined>;
  update(
    context: Context<B>,
    request: {
      id: string;
      oldInputs: Properties;
      oldOutputs: Properties;
      inputs: Properties;
      preview: boolean;
      op: Operation;
    },
  ): Promise<Properties>;
  delete(
    context: Context<B>,
    request: { id: string; inputs: Properties; outputs: Properties; op: Operation },
  ): Promise<void>;
}

/** A function of a plugin, e.g. `command:local:run`. It is called in preview too. */
export type PluginFunction<B = Backends> = (
  context: Context<B>,
  request: { inputs: Properties; op: Operation },
) => Promise<{ outputs: Properties; failures: CheckFailure[]; derived?: Derived }>;
