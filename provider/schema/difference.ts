/** Differences between property trees, as paths that the engine shows. */
import { own } from "../../shared/own-properties.js";
import { isUnknown, type Properties, type PropertyDiff, type Value } from "../protocol/resource.js";
import { isRecord } from "./schema.js";

type Change = "add" | "update" | "delete";

/** Each leaf in which two values differ. An unknown value differs from every known one. */
export function* differences(
  path: string,
  old: Value | undefined,
  next: Value | undefined,
): Generator<{ path: string; change: Change }> {
  if (old === undefined && next === undefined) return;
  if (old === undefined || next === undefined) {
    yield { path, change: old === undefined ? "add" : "delete" };
  } else if (isUnknown(next) || isUnknown(old)) {
    if (!(isUnknown(next) && isUnknown(old))) yield { path, change: "update" };
  } else if (Array.isArray(old) && Array.isArray(next)) {
    for (let index = 0; index < Math.max(old.length, next.length); index++) {
      yield* differences(`${path}[${index}]`, old[index], next[index]);
    }
  } else if (isRecord(old) && isRecord(next)) {
    for (const name of new Set([...Object.keys(old), ...Object.keys(next)])) {
      const child = /^[A-Za-z_]\w*$/.test(name)
        ? path
          ? `${path}.${name}`
          : name
        : `${path}[${JSON.stringify(name)}]`;
      yield* differences(child, own(old, name), own(next, name));
    }
  } else if (old !== next) {
    yield { path, change: "update" };
  }
}

/**
 * The differences between old and new inputs.
 *
 * @param replaces patterns of paths whose change replaces the resource
 * @param ignores patterns of paths that are compared in another way, or not at all
 */
export function inputDifferences(
  old: Properties,
  next: Properties,
  replaces: RegExp[] = [],
  ignores: RegExp[] = [],
): PropertyDiff[] {
  return [...differences("", old, next)]
    .filter(({ path }) => !ignores.some((pattern) => pattern.test(path)))
    .map(({ path, change }) => ({
      path,
      kind: replaces.some((pattern) => pattern.test(path)) ? (`${change}-replace` as const) : change,
      inputDiff: true,
    }));
}

/** A difference between observed and desired state. */
export function drift(path: string): PropertyDiff {
  return { path, kind: "update", inputDiff: false };
}
