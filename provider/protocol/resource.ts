/**
 * The interface between the protocol and the resources. The protocol knows no resource. A resource (`resources/`) knows
 * its backends and nothing of the protocol.
 *
 * Values are plain JavaScript. Secrets are unwrapped. The protocol marks outputs secret again, at every path that was
 * secret in the inputs and at every property that is secret in the schema. A value that is not known yet, in preview,
 * is `unknown`.
 */
import type { CheckFailure } from "../backends/errors.js";
import type { Backends, Operation } from "../backends/index.js";

class UnknownValue {
  // Makes the type incompatible with plain objects.
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
  /** True: old and new inputs differ. False: the observed state differs from the desired one. */
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
 * Thrown by create and update when the resource exists but is not as declared. The engine keeps id and outputs and
 * shows the reasons, and the next `up` calls update.
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

/**
 * For lists that a check has sorted, merged or rewritten, by property: for each item of the result, the indexes of the
 * given items that it was made from.
 */
export type Origins = Readonly<Record<string, readonly (readonly number[])[]>>;

/** Outputs that are made from inputs. */
export interface Derived {
  outputs: readonly string[];
  /** Inputs that do not affect these outputs. Default: none. */
  exceptInputs?: readonly string[];
}

/** @typeParam B the resource's backends. Default: those of Palisade's own resources */
export interface Resource<B = Backends> {
  /** Token, e.g. `palisade:index:VirtualMachine`. */
  readonly type: string;
  /**
   * Outputs that are made from all inputs, with exceptions. Such an output is secret when one of these inputs is, or
   * when it was secret before. Default: none.
   */
  readonly derived?: Derived;
  /** Time-outs in seconds, when the program sets no customTimeouts. */
  readonly defaultTimeouts: { create: number; update: number; delete: number };
  /**
   * Validates, fills in defaults and normalises. Pure and complete: it reads nothing but local files that are inputs.
   */
  check(
    context: Context<B>,
    request: { inputs: Properties; oldInputs: Properties | undefined },
  ): Promise<{ inputs: Properties; failures: CheckFailure[] }>;
  /**
   * For a check that sorts, merges or rewrites items of lists: which given items each item stands for, to mark secrets.
   */
  origins?(given: Properties, checked: Properties): Origins;
  /** The differences in detail; an empty list means no change. A replacement deletes first. */
  diff(request: { id: string; oldInputs: Properties; oldOutputs: Properties; inputs: Properties }): PropertyDiff[];
  /** In preview an output that cannot be known yet is `unknown`, and the id is empty. */
  create(context: Context<B>, request: { inputs: Properties; preview: boolean; op: Operation }): Promise<CreateResult>;
  /** Inputs and outputs are absent when the resource is imported. Returns undefined when it is proven absent. */
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

/** A function of a plugin, e.g. `command:local:run`. The engine calls it in previews too. */
export type PluginFunction<B = Backends> = (
  context: Context<B>,
  request: { inputs: Properties; op: Operation },
) => Promise<{ outputs: Properties; failures: CheckFailure[]; derived?: Derived }>;
