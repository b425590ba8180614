/** Errors that resources handle in different ways. */

/**
 * A wrong input: the property's path (`containers[0].resources.limits.cpu`) and what is wrong with it, with the value.
 */
export interface CheckFailure {
  property: string;
  reason: string;
}

/** Thrown when a run-time condition of one property fails after Check, e.g. a port that is in use. */
export class PropertyError extends Error {
  override readonly name = "PropertyError";
  constructor(readonly failures: CheckFailure[]) {
    super(failures.map((failure) => `${failure.property}: ${failure.reason}`).join("\n"));
  }
}

/** The host cannot be reached: no answer, connection refused, time-out. It proves nothing about the host's state. */
export class UnreachableHostError extends Error {
  override readonly name = "UnreachableHostError";
}
/** Another host than the expected one answered. */
export class ForeignHostError extends Error {
  override readonly name = "ForeignHostError";
}

/** The host refuses a spec. Each violation names a field by its path in the group's spec, in JSON names. */
export class InvalidFieldsError extends Error {
  override readonly name = "InvalidFieldsError";
  constructor(
    message: string,
    readonly violations: { path: string; reason: string }[],
  ) {
    super(message);
  }
}
