/**
 * Names that programs choose, looked up in plain objects: what every object inherits, such as `constructor`, is none of
 * them.
 */

/** The own property of a table; undefined when there is none. */
export function own<T>(table: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return table !== undefined && Object.hasOwn(table, name) ? table[name] : undefined;
}

/** Sets an own property, whatever its name: an assignment to `__proto__` would be lost. */
export function setOwn<T>(target: Record<string, T>, name: string, value: T): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
}
