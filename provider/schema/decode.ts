/**
 * The inputs of resources as the types that are generated from their schema, Palisade's own (inputs.ts) or another.
 * Nowhere else do properties get such a type, so only values that were validated have it.
 *
 * A secret value is decoded as a plain one, because a resource has to use it. Which paths are secret is kept by the
 * protocol (protocol/secret-marks.ts), which marks them again in whatever the resource returns.
 */
import { PropertyError, type CheckFailure } from "../backends/errors.js";
import type { Properties, Unknown, Value } from "../protocol/resource.js";
import type { Inputs } from "./inputs.js";
import { anyUnknown, packageSchema, validate, type PackageSchema } from "./schema.js";

/** Token of a resource, e.g. `palisade:index:VirtualMachine`. */
export type ResourceType = keyof Inputs;

/** `T` in a preview, where each value below it can be unknown. */
export type Previewed<T> = T extends readonly (infer Item)[]
  ? (Unknown | Previewed<Item>)[]
  : T extends object
    ? { [Name in keyof T]: Unknown | Previewed<T[Name]> }
    : T;

/** Decodes the inputs of the resources of a schema. `All` has the generated type of each, by its token. */
export class Decoder<All> {
  constructor(private readonly schema: PackageSchema) {}

  /**
   * For Check: what a program gave, with defaults filled in, and everything in which it does not fit the schema. A
   * value that does not fit is reported and is unknown in the inputs, as is a required one that was not given.
   */
  check<T extends keyof All & string>(
    type: T,
    given: Properties,
  ): { inputs: Previewed<All[T]>; failures: CheckFailure[] } {
    const { inputs, failures } = validate(type, given, this.schema);
    return { inputs: inputs as unknown as Previewed<All[T]>, failures };
  }

  /**
   * The inputs that Check returned, all of them known. Properties that are no inputs in the schema, as those that Check
   * itself computes, are left out.
   *
   * @throws PropertyError when a value does not fit the schema
   * @throws Error when a value is unknown, which happens in previews only
   */
  decode<T extends keyof All & string>(type: T, checked: Properties): All[T] {
    const { inputs, failures } = validate(type, checked, this.schema, true);
    if (failures.length > 0) throw new PropertyError(failures);
    if (anyUnknown(inputs)) throw new Error(`${type}: an input is not known yet`);
    return inputs as unknown as All[T];
  }

  /**
   * The inputs that the state holds, or none at an import. An earlier version may have recorded them: what does not fit
   * the schema is left out, so that the resource can still be read and deleted.
   */
  stored<T extends keyof All & string>(type: T, stored: Properties | undefined): Partial<All[T]> {
    if (!stored) return {};
    const { inputs } = validate(type, stored, this.schema, true);
    const fitting = Object.entries(inputs).filter(([, value]) => !anyUnknown(value));
    return Object.fromEntries(fitting) as Partial<All[T]>;
  }
}

const decoder = new Decoder<Inputs>(packageSchema);

/** `Decoder.check` for Palisade's resources. */
export const checkInputs = <T extends ResourceType>(
  type: T,
  given: Properties,
): { inputs: Previewed<Inputs[T]>; failures: CheckFailure[] } => decoder.check(type, given);

/** `Decoder.decode` for Palisade's resources. */
export const decodeInputs = <T extends ResourceType>(type: T, checked: Properties): Inputs[T] =>
  decoder.decode(type, checked);

/** `Decoder.stored` for Palisade's resources. */
export const storedInputs = <T extends ResourceType>(type: T, stored: Properties | undefined): Partial<Inputs[T]> =>
  decoder.stored(type, stored);

/** A value of checked inputs when all of it is known; else undefined. */
export function whenKnown<T>(value: Unknown | Previewed<T> | undefined): T | undefined {
  return anyUnknown(value as Value | undefined) ? undefined : (value as T | undefined);
}
