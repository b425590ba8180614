/**
 * Finds which values that a resource returned are secret. Resources get plain values. They may sort, deduplicate and
 * complete lists and copy values elsewhere, and a value that was secret is marked wherever it is then.
 */
import { isDeepStrictEqual } from "node:util";
import { isUnknown, type Derived, type Origins, type Properties, type Value } from "./resource.js";
import { SecretPaths, type Decoded, type Path } from "./marshal.js";

/** Shorter values can be equal by chance. */
const shortestCopied = 4;
/** Shorter values can occur in longer ones by chance. */
const shortestContained = 16;

/**
 * The secret paths of a tree.
 *
 * @param known the properties that the tree was made from: first those with its shape, then others that values may come
 * from
 * @param isSecret whether the schema marks a path as secret
 * @param derived outputs that are made from all inputs
 * @param origins for lists that were sorted or deduplicated: the items that each item stands for
 */
export function propagatedSecrets(
  known: Decoded[],
  tree: Properties,
  isSecret: (path: Path) => boolean,
  derived?: Derived,
  origins: Origins = {},
): SecretPaths {
  const marks = new SecretPaths();
  const [shape, ...others] = known as [Decoded, ...Decoded[]];
  for (const path of shape.secrets.paths()) {
    const items = origins[String(path[0])];
    if (items && typeof path[1] === "number") {
      items.forEach((from, index) => {
        if (from.includes(path[1] as number)) marks.add([path[0]!, index, ...path.slice(2)]);
      });
    } else for (const moved of placesOf(path, shape.properties, tree)) marks.add(moved);
  }
  if (derived) markDerived(marks, shape, others, isSecret, derived);
  markCopies(marks, known, tree, isSecret);
  return marks;
}

function at(tree: Value | undefined, path: Path): Value | undefined {
  let value = tree;
  for (const step of path) {
    // Every part of an unknown value is unknown.
    if (isUnknown(value)) return value;
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Record<string, Value>)[step];
  }
  return value;
}

/** The paths at which the value that was at a path can be now. */
function placesOf(path: Path, old: Properties, tree: Properties): Path[] {
  const now = at(tree, path);
  if (isUnknown(now) || (now !== undefined && isDeepStrictEqual(now, at(old, path)))) return [path];
  const index = path.findIndex((step) => typeof step === "number");
  if (index < 0) return now === undefined ? [] : [path];
  // The list was sorted, or items were removed from it.
  const [list, below] = [path.slice(0, index), path.slice(index + 1)];
  const items = at(tree, list);
  if (!Array.isArray(items)) return items === undefined ? [] : [list];
  const item = at(old, path.slice(0, index + 1));
  const found = items.flatMap((candidate, place) =>
    isDeepStrictEqual(candidate, item) ? [[...list, place, ...below]] : [],
  );
  if (found.length > 0) return found;
  // An item that was changed too can be any of them. Only its secret part is marked, so that names stay readable in
  // messages.
  if (below.length === 0) return [list];
  return items.flatMap((candidate, place) => (at(candidate, below) === undefined ? [] : [[...list, place, ...below]]));
}

function markDerived(
  marks: SecretPaths,
  inputs: Decoded,
  others: Decoded[],
  isSecret: (path: Path) => boolean,
  { outputs, exceptInputs = [] }: Derived,
): void {
  const given = Object.keys(inputs.properties).filter(
    (name) => !exceptInputs.includes(name) && !outputs.includes(name),
  );
  const anySecret = given.some((name) => {
    let found = inputs.secrets.reaches([name]);
    visit(inputs.properties[name], [name], (path) => (found ||= isSecret(path)));
    return found;
  });
  for (const output of outputs) {
    if (anySecret || [inputs, ...others].some(({ secrets }) => secrets.reaches([output]))) marks.add([output]);
  }
}

/** Marks every value that equals or contains a secret value and was not given in the clear. */
function markCopies(marks: SecretPaths, known: Decoded[], tree: Properties, isSecret: (path: Path) => boolean): void {
  const [hidden, open] = [new Set<string>(), new Set<string>()];
  for (const { properties, secrets } of known) {
    visit(properties, [], (path, value, inside) => {
      const marked = inside || secrets.has(path) || isSecret(path);
      if (typeof value === "string") (marked ? hidden : open).add(value);
      return marked;
    });
  }
  const copied = [...hidden].filter((value) => value.length >= shortestCopied && !open.has(value));
  if (copied.length === 0) return;
  const contained = copied.filter((value) => value.length >= shortestContained);
  visit(tree, [], (path, value, inside) => {
    if (inside || marks.has(path) || isSecret(path)) return true;
    if (typeof value !== "string" || open.has(value)) return false;
    if (copied.includes(value) || contained.some((one) => value.includes(one))) marks.add(path);
    return false;
  });
}

/** Walks a tree from its root. The result of `each` for a value is passed to the calls for the values in it. */
function visit(
  value: Value | undefined,
  path: Path,
  each: (path: Path, value: Value, inside: boolean) => boolean,
  inside = false,
): void {
  if (value === undefined) return;
  const below = path.length > 0 ? each(path, value, inside) : inside;
  if (Array.isArray(value)) value.forEach((item, index) => visit(item, [...path, index], each, below));
  else if (typeof value === "object" && value !== null && !isUnknown(value)) {
    for (const [name, item] of Object.entries(value)) visit(item, [...path, name], each, below);
  }
}
