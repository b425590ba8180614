/** What goes wrong in a way that resources tell apart. */

/** A wrong input: the property's path (`containers[0].resources.limits.cpu`) and what is wrong with it, with the value. */
export interface CheckFailure {
  property: string;
  reason: string;
}

/** Thrown where a run-time condition that belongs to one property is found after Check, e.g. a port that is in use. */
export class PropertyError extends Error {
  override readonly name = "PropertyError";
  constructor(readonly failures: CheckFailure[]) {
    super(failures.map((failure) => `${failure.property}: ${failure.reason}`).join("\n"));
  }
}

/** The host cannot be reached: no answer, connection refused, time-out. Not a proof of anything. */
export class UnreachableHostError extends Error {
  override readonly name = "UnreachableHostError";
}
/** Something answered, and it is not the host that was asked for. */
export class ForeignHostError extends Error {
  override readonly name = "ForeignHostError";
}

/** The host refuses a spec: what is wrong with which field, by path from the group's spec in JSON names. */
export class InvalidFieldsError extends Error {
  override readonly name = "InvalidFieldsError";
  constructor(
    message: string,
    readonly violations: { path: string; reason: string }[],
  ) {
    super(message);
  }
}
