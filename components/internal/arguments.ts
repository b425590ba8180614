/** Checking of components' arguments: all problems of a call at once, each with the path of the wrong field. */
import { inspect } from "node:util";
import * as pulumi from "@pulumi/pulumi";
import { isDnsLabel } from "../../shared/dns-label.js";
import { nameProblem, referenceProblem, serverProblem } from "../../shared/image-reference.js";

/** What is wrong with one field. */
export interface Problem {
  /** As the user writes it, e.g. `containers[0].ports[1].port`. */
  path: string;
  /** As a message may show it; absent for secrets and for fields that are not there. */
  value?: string;
  /** What is wrong, and what would be right. */
  reason: string;
}

/** Refused arguments. Pulumi shows the message without a stack trace and ends the run, in preview as in update. */
export class ArgumentError extends pulumi.RunError {
  constructor(
    private readonly subject: string,
    readonly problems: readonly Problem[],
  ) {
    super(
      [
        `${subject}: ${problems.length === 1 ? "an argument is" : `${problems.length} arguments are`} not valid`,
        ...problems.map(({ path, value, reason }) => `  ${path}${value === undefined ? "" : ` = ${value}`}: ${reason}`),
      ].join("\n"),
    );
  }

  /** The same without the values, and without what its reasons quote of them. */
  withoutValues(quoted: unknown): ArgumentError {
    const texts = textsIn(quoted).sort((a, b) => b.length - a.length);
    return new ArgumentError(
      this.subject,
      this.problems.map(({ path, reason }) => ({
        path,
        reason: texts.reduce((shown, text) => shown.replaceAll(text, () => "[secret]"), reason),
      })),
    );
  }

  /** Pulumi hangs promises on errors and inspects them, for a minute and more, when an output was refused. */
  [inspect.custom](): string {
    return this.message;
  }
}

/** Shorter texts are parts of ordinary words. */
const shortestQuoted = 4;

/** The texts and numbers of a value as a message may quote them; short ones only in quotes. */
function textsIn(value: unknown): string[] {
  if (typeof value === "object" && value !== null) return Object.values(value).flatMap(textsIn);
  if (typeof value !== "string" && typeof value !== "number") return [];
  const text = String(value);
  const quoted = JSON.stringify(text);
  return text.length >= shortestQuoted ? [text, quoted.slice(1, -1)] : [quoted];
}

/** Runs a check when an input is known. Its messages quote nothing of a secret input. */
export function whenKnown<T, R>(
  input: pulumi.Input<T>,
  check: (value: pulumi.Unwrap<T>) => R,
): pulumi.Output<pulumi.Unwrap<R>> {
  const output = pulumi.output(input);
  return output.apply((value): R | Promise<R> => {
    try {
      return check(value);
    } catch (error) {
      if (!(error instanceof ArgumentError)) throw error;
      return pulumi.isSecret(output).then((secret) => {
        throw secret ? error.withoutValues(value) : error;
      });
    }
  }) as pulumi.Output<pulumi.Unwrap<R>>;
}

/** Whether a value was given: `null`, which JSON and YAML have for it, is as absent as `undefined`. */
export function isGiven<T>(value: T): value is NonNullable<T> {
  return value !== undefined && value !== null;
}

/** Whether a value becomes known later, and then perhaps as nothing at all. */
export function isLate(value: unknown): boolean {
  return pulumi.Output.isInstance(value) || value instanceof Promise;
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * Arguments without what is not given: properties that are `null` are left out, at every depth that is known now. Every
 * component reads its arguments through this, so that no code below has to distinguish `null` from `undefined`. Items
 * of lists stay, because their positions count. Outputs, resources and assets stay as well.
 */
export function given<T>(value: T): T {
  if (Array.isArray(value)) return value.map(given) as T;
  if (!isPlain(value)) return value;
  const entries = Object.entries(value).filter(([, content]) => isGiven(content));
  return Object.fromEntries(entries.map(([key, content]) => [key, given(content)])) as T;
}

/** A value that is known now. Outputs and promises are not known yet; the provider's Check looks at them. */
export function known<T>(input: pulumi.Input<T> | undefined): T | undefined {
  return !isGiven(input) || isLate(input) ? undefined : (input as T);
}

/** A rule says what is wrong with a value, or nothing. */
export type Rule<T> = (value: T) => string | undefined;

/** Collects the problems of one component's arguments. */
export class ArgumentCheck {
  private readonly problems: Problem[] = [];

  /**
   * @param subject who is refused, e.g. `NestedHost "web"`
   * @param showsValues whether messages may show the values of wrong fields. Default: true. False where some are
   * secret.
   */
  constructor(
    private readonly subject: string,
    private readonly showsValues = true,
  ) {}

  /** Problems until now. */
  get count(): number {
    return this.problems.length;
  }

  add(path: string, value: unknown, reason: string): void {
    const shown = value === undefined || !this.showsValues ? undefined : (JSON.stringify(value) ?? typeof value);
    this.problems.push({ path, reason, ...(shown === undefined ? {} : { value: shown }) });
  }

  /** A problem of a value that no message may show. */
  addSecret(path: string, reason: string): void {
    this.problems.push({ path, reason });
  }

  require(path: string, value: unknown): void {
    if (!isGiven(value)) this.add(path, undefined, "is required");
  }

  /** The items of a list that are known now. What is no list, and an item that is not given, is refused. */
  items<T>(
    path: string,
    list: pulumi.Input<pulumi.Input<T>[] | undefined> | undefined,
    visit: (item: T, path: string, index: number) => void,
  ): void {
    const items = known(list);
    if (items === undefined) return;
    if (!Array.isArray(items)) return this.add(path, undefined, "must be a list");
    items.forEach((input, index) => {
      const at = `${path}[${index}]`;
      this.require(at, input);
      const item = known(input);
      if (item !== undefined) visit(item, at, index);
    });
  }

  /** Whether a value that is known now is an object; another one is refused. */
  object<T>(path: string, value: T | undefined): value is T & object {
    if (value === undefined) return false;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return true;
    this.add(path, undefined, "must be an object");
    return false;
  }

  /**
   * Refuses a name that no program in JavaScript can pass on: Pulumi's SDK copies properties by assignment, and an
   * assignment to `__proto__` is lost without an error.
   */
  names(path: string, value: unknown): void {
    if (Array.isArray(value)) return value.forEach((item, index) => this.names(`${path}[${index}]`, item));
    if (!isPlain(value)) return;
    for (const [key, content] of Object.entries(value)) {
      const at = path === "" ? key : `${path}.${key}`;
      if (key === "__proto__") this.addSecret(at, "no property can have this name: Pulumi would lose it");
      else this.names(at, content);
    }
  }

  /** Applies a rule now when the value is known; later, when it is an output, without changing the value. */
  field<T>(path: string, input: pulumi.Input<T> | undefined, rule: Rule<T>): pulumi.Input<T> | undefined {
    if (!isGiven(input)) return undefined;
    const value = known(input);
    if (value !== undefined) {
      const reason = rule(value);
      if (reason) this.add(path, value, reason);
      return input;
    }
    return whenKnown(input, (resolved) => {
      const later = new ArgumentCheck(this.subject);
      if (isGiven(resolved)) later.field<T>(path, resolved as T, rule);
      later.refuse();
      return (resolved ?? undefined) as T;
    }) as pulumi.Output<T>;
  }

  /** Refuses keys that are not among the arguments: a misspelt one would silently have no effect. */
  keys(path: string, value: object, allowed: readonly string[], reasons: Record<string, string> = {}): void {
    for (const [key, content] of Object.entries(value)) {
      if (!isGiven(content) || allowed.includes(key)) continue;
      const reason = Object.hasOwn(reasons, key) ? reasons[key] : undefined;
      this.addSecret(
        path === "" ? key : `${path}.${key}`,
        reason ?? `no such argument; there are ${allowed.join(", ")}`,
      );
    }
  }

  /** Ends the run when there are problems. */
  refuse(): void {
    if (this.problems.length > 0) throw new ArgumentError(this.subject, this.problems);
  }
}

/** Rules that several components share. */
export const rules = {
  integer:
    (minimum: number, maximum: number): Rule<number> =>
    (value) =>
      Number.isInteger(value) && value >= minimum && value <= maximum
        ? undefined
        : `must be a whole number from ${minimum} to ${maximum}`,

  oneOf:
    (...allowed: string[]): Rule<string> =>
    (value) =>
      allowed.includes(value) ? undefined : `must be ${allowed.join(" or ")}`,

  text: ((value) =>
    typeof value === "string" && value !== "" ? undefined : "must be a text that is not empty") as Rule<string>,

  boolean: ((value) => (typeof value === "boolean" ? undefined : "must be true or false")) as Rule<boolean>,

  /** RFC 1123: what names of groups and containers are made of. */
  dnsLabel: ((value) =>
    isDnsLabel(value)
      ? undefined
      : "must be a DNS label: a to z, 0 to 9 and '-', at most 63 characters, '-' not at its ends") as Rule<string>,

  digest: ((value) =>
    typeof value === "string" && /^sha256:[0-9a-f]{64}$/.test(value)
      ? undefined
      : "must be a digest: sha256: and 64 hexadecimal digits, e.g. the imageDigest of a HostImage") as Rule<string>,

  /** host[:port] of a registry. */
  imageServer: ((value) => {
    const problem = typeof value === "string" ? serverProblem(value) : "is no text";
    return problem && `must be host[:port] as in image references, without a scheme: ${problem}`;
  }) as Rule<string>,

  imageRepository: ((value) => {
    const problem = typeof value === "string" ? nameProblem(value) : "is no text";
    return problem && `must be server/repository, without tag and digest: ${problem}`;
  }) as Rule<string>,

  imageReference: ((value) => {
    const problem = typeof value === "string" ? referenceProblem(value) : "is no text";
    return problem && `must name the image by digest: server/repository@sha256:…: ${problem}`;
  }) as Rule<string>,
};
