/**
 * Values of the command line, one function for each kind. Each returns the value or throws an {@link ArgumentProblem}
 * with the reason alone: the caller names the argument and the text. Nothing here reads the network or Pulumi's state.
 */
import { X509Certificate } from "node:crypto";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { isIP, isIPv4 } from "node:net";
import path from "node:path";
import { serialNumberPattern } from "../shared/serial-number.js";
import { isDnsLabel } from "../shared/dns-label.js";
import { parsePkcs11Uri } from "../shared/pkcs11-uri.js";
import {
  parseImageReference,
  referenceForm,
  referenceProblem,
  type ImageReference,
} from "../shared/image-reference.js";

/** Why a value is refused, as the end of a sentence that begins with the argument and its text. */
export class ArgumentProblem extends Error {
  /** @param isSecret the text may hold a secret, so it is not repeated */
  constructor(
    reason: string,
    readonly isSecret = false,
  ) {
    super(reason);
  }
}

function refuse(reason: string): never {
  throw new ArgumentProblem(reason);
}

/** A whole number in decimal digits. */
function wholeNumber(text: string, minimum: number, maximum: number): number {
  // Longer than the maximum: it may not be a safe integer any more.
  const isNumber = /^\d+$/.test(text) && text.replace(/^0+/, "").length <= String(maximum).length;
  const value = isNumber ? Number(text) : NaN;
  if (value >= minimum && value <= maximum) return value;
  return refuse(`must be a whole number from ${minimum} to ${maximum}`);
}

/** Number of lines, 1 to 1000000. */
export const lineCount = (text: string): number => wholeNumber(text, 1, 1_000_000);

/** Number of days, 1 to 365. */
export const dayCount = (text: string): number => wholeNumber(text, 1, 365);

/** A TCP or UDP port, 1 to 65535. */
export const port = (text: string): number => wholeNumber(text, 1, 65535);

/** An IP address, or a prefix in CIDR notation: https://www.rfc-editor.org/rfc/rfc4632#section-3.1 */
export function address(text: string): string {
  const [host = "", length, ...rest] = text.split("/");
  const isZoned = host.includes("%");
  const maximum = isIPv4(host) ? 32 : 128;
  const isLength = length === undefined || (/^(0|[1-9]\d{0,2})$/.test(length) && Number(length) <= maximum);
  if (isIP(host) && !isZoned && isLength && rest.length === 0) return text;
  return refuse("must be an address or a prefix, e.g. 192.0.2.7 or 192.0.2.0/24");
}

/** A DNS label: the form of group and container names. */
export function dnsLabel(text: string): string {
  if (isDnsLabel(text)) return text;
  return refuse("must be 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit");
}

/** The name or the id of a host. A machine outside of a component may have any name that Pulumi accepts. */
export function hostName(text: string): string {
  if (/^[^\s\p{Cc}-][^\p{Cc}]{0,254}$/u.test(text)) return text;
  return refuse("must be the name of a host, e.g. edge");
}

/** A stack as `pulumi --stack` takes it: `dev`, `organization/dev`, `organization/project/dev`. */
export function stackName(text: string): string {
  if (/^[A-Za-z0-9_.][\w.-]{0,99}(\/[A-Za-z0-9_.][\w.-]{0,99}){0,2}$/.test(text)) return text;
  return refuse("must be the name of a stack: letters, digits, '-', '_' and '.', e.g. dev or organization/project/dev");
}

/** A stack named by the environment; it is checked like the option. @throws Error that names the variable. */
export function stackOfEnvironment(environment: NodeJS.ProcessEnv = process.env): string {
  for (const variable of ["PULUMI_STACK", "STACK"]) {
    const text = environment[variable];
    if (!text) continue;
    try {
      return stackName(text);
    } catch (error) {
      throw new Error(`${variable}: '${text}' ${(error as Error).message}`, { cause: error });
    }
  }
  return "local";
}

/** Why a host drops a packet. Only the form is checked: the host knows which reasons exist. */
export function dropReason(text: string): string {
  if (/^[a-z][a-z0-9_]{0,62}$/.test(text)) return text;
  return refuse("must be a reason as `palisade flows` shows it, e.g. policy_default_denied");
}

/** Ten years, which is longer than any host keeps anything. */
const longestHours = 87_600;
const units = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 };

/**
 * A point in time: how long ago, `90s`, `5m`, `1h30m`, `7d`, at most 87600h; or a time as
 * https://www.rfc-editor.org/rfc/rfc3339 has it, in the years 1970 to 9999.
 */
export function since(text: string, now = Date.now()): Date {
  const parts = /^(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text)?.slice(1);
  if (parts) {
    const milliseconds = Object.values(units).reduce((sum, unit, index) => sum + Number(parts[index] ?? 0) * unit, 0);
    if (milliseconds <= longestHours * units.h) return new Date(now - milliseconds);
    return refuse(`must be at most ${longestHours}h, ten years`);
  }
  const day =
    /^(\d{4}-\d\d-\d\d)[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$/.exec(text);
  const time = day ? Date.parse(text.toUpperCase()) : NaN;
  // JavaScript takes the 30th of February for the 2nd of March.
  const isDay = day && new Date(`${day[1]}T00:00:00Z`).toJSON()?.startsWith(day[1]!);
  if (!isDay || Number.isNaN(time)) {
    return refuse("must be a time, e.g. 2026-01-31T12:00:00Z, or how long ago, e.g. 90s, 5m, 1h30m or 7d");
  }
  if (time < 0) return refuse("must not be before 1970-01-01T00:00:00Z");
  return new Date(time);
}

/** A path that the operator gives, made absolute. */
export function anyPath(text: string): string {
  if (text === "" || text.includes("\0")) return refuse("must be a path");
  return path.resolve(text);
}

/** A folder that exists or can be created. */
export function newFolder(text: string): string {
  const folder = anyPath(text);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found && !found.isDirectory()) return refuse("is a file; a folder is expected");
  return folder;
}

/** A folder that exists. */
export function folder(text: string): string {
  const found = newFolder(text);
  if (!statSync(found, { throwIfNoEntry: false })) return refuse("there is no such folder");
  return found;
}

/** A file that can be read. */
export function readableFile(text: string): string {
  const file = anyPath(text);
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found) return refuse("cannot be read: there is no such file");
  if (found.isDirectory()) return refuse("cannot be read: it is a folder");
  try {
    accessSync(file, constants.R_OK);
  } catch (error) {
    return refuse(`cannot be read: ${(error as Error).message}`);
  }
  return file;
}

/** The content of a text file that is not empty. */
export function textOfFile(text: string): string {
  const content = readFileSync(readableFile(text), "utf8");
  if (content.trim() === "") return refuse("is empty");
  return content;
}

/** `SERVER/REPOSITORY[:TAG]@sha256:…`. A tag beside the digest is ignored: the digest decides. */
export function imageReference(text: string): ImageReference {
  const problem = referenceProblem(text);
  return problem === undefined ? parseImageReference(text) : refuse(`${problem}; expected ${referenceForm}`);
}

/** A binary package of Debian: https://www.debian.org/doc/debian-policy/ch-controlfields.html#source */
export function packageName(text: string): string {
  if (/^[a-z0-9][a-z0-9+.-]+$/.test(text)) return text;
  return refuse("must be the name of a Debian package, e.g. nginx");
}

/** The code name of a release of Debian. */
export function suiteName(text: string): string {
  if (/^[a-z]{2,32}$/.test(text)) return text;
  return refuse("must be the code name of a release of Debian, e.g. trixie");
}

/** The id of an ephemeral stack. */
export function ephemeralId(text: string): string {
  if (/^ephemeral-[0-9a-f]{12}$/.test(text)) return text;
  return refuse("must be the id of an ephemeral stack, e.g. ephemeral-0123456789ab");
}

/** A user of a registry: https://www.rfc-editor.org/rfc/rfc7617#section-2 takes no colon. */
export function userName(text: string): string {
  if (/^[^:\p{Cc}]{1,255}$/u.test(text)) return text;
  return refuse("must be the name of a user, without a colon");
}

/** The password in a file; white space at its end is not part of it. */
export function passwordOfFile(text: string): string {
  const password = textOfFile(text).trimEnd();
  if (/\p{Cc}/u.test(password)) return refuse("holds more than one line; a password is one");
  return password;
}

/** The serial number of a certificate, in hex as programs print it: of either case, with or without colons. */
export function serialNumber(text: string): string {
  const number = text
    .toLowerCase()
    .replaceAll(":", "")
    .replace(/^0+(?=.)/, "");
  if (serialNumberPattern.test(number)) return number;
  return refuse("must be the serial number of a certificate, 1 to 40 hex digits");
}

/** The certificates in a file, PEM. */
export function certificatesOfFile(text: string): string {
  const content = textOfFile(text);
  const blocks = content.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) return refuse("holds no certificate in PEM");
  for (const block of blocks) {
    try {
      new X509Certificate(block);
    } catch (error) {
      return refuse(`holds a certificate that cannot be read: ${(error as Error).message}`);
    }
  }
  return content;
}

/** The URI of a key: https://www.rfc-editor.org/rfc/rfc7512. It may hold a PIN, so a refusal does not repeat it. */
export function pkcs11Uri(text: string): string {
  try {
    parsePkcs11Uri(text);
    return text;
  } catch (error) {
    throw new ArgumentProblem((error as Error).message, true);
  }
}
