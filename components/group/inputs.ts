/** Changing arguments that may become known part by part, so that a preview shows every part that is known. */
import * as pulumi from "@pulumi/pulumi";
import { known, whenKnown } from "../internal/arguments.js";
import type { List, OptionalList } from "./model.js";

/** Applies a change now when the input itself is known, otherwise when it becomes so. */
export function lift<T, R>(input: pulumi.Input<T>, change: (value: T) => R): pulumi.Input<R> {
  const value = known(input);
  return value === undefined ? pulumi.output(input).apply<R>((resolved) => change(resolved as T)) : change(value);
}

/** The same, item by item; an absent list stays absent. */
export function mapItems<T, R>(list: List<T>, change: (item: T, index: number) => R): List<R>;
export function mapItems<T, R>(
  list: OptionalList<T> | undefined,
  change: (item: T, index: number) => R,
): List<R> | undefined;
export function mapItems<T, R>(
  list: OptionalList<T> | undefined,
  change: (item: T, index: number) => R,
): List<R> | undefined {
  if (list === undefined) return undefined;
  return lift(list, (items) => items?.map((input, index) => lift(input, (item) => change(item, index)))) as List<R>;
}

/** Marks a value secret by its nature, so that a program need not remember `pulumi.secret`; an absent one stays absent. */
export function secret<T>(input: pulumi.Input<T> | undefined): pulumi.Output<T> | undefined {
  return input === undefined ? undefined : (pulumi.secret(input) as pulumi.Output<T>);
}

/**
 * For `dependsOn`: lets a resource be registered only when its arguments, all known by then, have passed `verify`. In a
 * preview in which some are not known yet nothing is verified by this.
 */
export function verified<T extends object>(args: T, verify: (args: T) => void): pulumi.Output<pulumi.Resource[]> {
  return whenKnown(args, (resolved): pulumi.Resource[] => {
    verify(resolved as T);
    return [];
  });
}
