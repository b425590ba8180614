/**
 * Names of all properties of an interface, in the order in which they are written. A name that is missing, and one that
 * the interface does not have, is an error of the compiler.
 */
export function argumentNames<Args extends object>(names: { [Name in keyof Args]-?: true }): string[] {
  return Object.keys(names);
}
