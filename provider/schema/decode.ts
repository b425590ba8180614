/**
 * The inputs of Palisade's resources as the types that are generated from the schema (inputs.ts). Nowhere else do
 * properties get such a type, so only values that were validated have it.
 *
 * A secret value is decoded as a plain one, because a resource has to use it. Which paths are secret is kept by the
 * protocol (protocol/secret-marks.ts), which marks them again in whatever the resource returns.
 */
import { PropertyError, type CheckFailure } from "../backends/errors.js";
import type { Properties, Unknown, Value } from "../protocol/resource.js";
import type { Inputs } from "./inputs.js";
import { anyUnknown, validate } from "./schema.js";

/** Token of a resource, e.g. `palisade:index:VirtualMachine`. */
export type ResourceType = keyof Inputs;

/** `T` in a preview, where each value below it can be unknown. */
export type Previewed<T> = T extends readonly (infer Item)[]
  ? (Unknown | Previewed<Item>)[]
  : T extends object
    ? { [Name in keyof T]: Unknown | Previewed<T[Name]> }
    : T;

/**
 * For Check: what a program gave, with defaults filled in, and everything in which it does not fit the schema. A value
 * that does not fit is reported and is unknown in the inputs, as is a required one that was not given.
 */
export function checkInputs<T extends ResourceType>(
  type: T,
  given: Properties,
): { inputs: Previewed<Inputs[T]>; failures: CheckFailure[] } {
  const { inputs, failures } = validate(type, given);
  return { inputs: inputs as Previewed<Inputs[T]>, failures };
}

/** A value of checked inputs when all of it is known; else undefined. */
export function whenKnown<T>(value: Unknown | Previewed<T> | undefined): T | undefined {
  return anyUnknown(value as Value | undefined) ? undefined : (value as T | undefined);
}

/**
 * The inputs that Check returned, all of them known. Properties that are no inputs in the schema, as those that Check
 * itself computes, are left out.
 *
 * @throws PropertyError when a value does not fit the schema
 * @throws Error when a value is unknown, which happens in previews only
 */
export function decodeInputs<T extends ResourceType>(type: T, checked: Properties): Inputs[T] {
  const { inputs, failures } = validate(type, checked, undefined, true);
  if (failures.length > 0) throw new PropertyError(failures);
  if (anyUnknown(inputs)) throw new Error(`${type}: an input is not known yet`);
  return inputs as Inputs[T];
}

/**
 * The inputs that the state holds, or none at an import. An earlier version may have recorded them: what does not fit
 * the schema is left out, so that the resource can still be read and deleted.
 */
export function storedInputs<T extends ResourceType>(type: T, stored: Properties | undefined): Partial<Inputs[T]> {
  if (!stored) return {};
  const { inputs } = validate(type, stored, undefined, true);
  const fitting = Object.entries(inputs).filter(([, value]) => !anyUnknown(value));
  return Object.fromEntries(fitting) as Partial<Inputs[T]>;
}
