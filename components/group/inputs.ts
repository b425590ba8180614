/** Changing arguments that may become known part by part, so that a preview shows every part that is known. */
import * as pulumi from "@pulumi/pulumi";
import { ArgumentCheck, given, isGiven, known } from "../internal/arguments.js";
import type { List, OptionalList } from "./model.js";

/**
 * Applies a change now when the input itself is known, otherwise when it becomes known. A later `null` is passed on as
 * undefined.
 */
export function lift<T, R>(input: pulumi.Input<T>, change: (value: T) => R): pulumi.Input<R> {
  const value = known(input);
  return value === undefined
    ? pulumi.output(input).apply<R>((resolved) => change((given(resolved) ?? undefined) as T))
    : change(value);
}

/** A value, or its default when it is absent now or later. */
export function withDefault<T>(input: pulumi.Input<T | undefined> | undefined, byDefault: T): pulumi.Input<T> {
  return isGiven(input) ? lift(input as pulumi.Input<T | undefined>, (value) => value ?? byDefault) : byDefault;
}

/** The same, item by item; an absent list stays absent. */
export function mapItems<T, R>(list: List<T>, change: (item: T, index: number) => pulumi.Input<R>): List<R>;
export function mapItems<T, R>(
  list: OptionalList<T> | undefined,
  change: (item: T, index: number) => pulumi.Input<R>,
): List<R> | undefined;
export function mapItems<T, R>(
  list: OptionalList<T> | undefined,
  change: (item: T, index: number) => pulumi.Input<R>,
): List<R> | undefined {
  if (!isGiven(list)) return undefined;
  // Items that are not given are refused by the checks.
  return lift(list as OptionalList<T>, (items) =>
    items?.map((input, index) =>
      lift(input, (item: T | undefined) => (isGiven(item) ? change(item, index) : undefined)),
    ),
  ) as List<R>;
}

/**
 * Marks a value secret by its nature, so that a program need not remember `pulumi.secret`; an absent one stays absent.
 */
export function secret<T>(input: pulumi.Input<T> | undefined): pulumi.Output<T> | undefined {
  return isGiven(input) ? (pulumi.secret(input).apply((value) => value ?? undefined) as pulumi.Output<T>) : undefined;
}

/**
 * For `dependsOn`: lets a resource be registered only when its arguments, all known by then, have passed `report`. In a
 * preview in which some are not known yet nothing is verified by this. Where one of them is secret no message shows a
 * value.
 */
export function verified<T extends object>(
  subject: string,
  args: T,
  report: (check: ArgumentCheck, args: T) => void,
): pulumi.Output<pulumi.Resource[]> {
  const all = pulumi.output(args);
  return all.apply(async (resolved): Promise<pulumi.Resource[]> => {
    const check = new ArgumentCheck(subject, !(await pulumi.isSecret(all)));
    report(check, given(resolved) as T);
    check.refuse();
    return [];
  });
}
