/** Errors of calls to a host, by kind: no answer, another host, a refusal. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { ForeignHostError, InvalidFieldsError, UnreachableHostError } from "../../backends/index.js";

/** Node's codes for a certificate that another host, or another CA's host, shows. */
const foreignCodes = new Set([
  "ERR_TLS_CERT_ALTNAME_INVALID",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_SIGNATURE_FAILURE",
]);

/** The `code` of the innermost error that has a text for one, e.g. ECONNREFUSED. */
export function systemCode(error: unknown): string | undefined {
  let found: string | undefined;
  for (let current = error; current instanceof Error; current = current.cause) {
    const code = (current as NodeJS.ErrnoException).code;
    if (typeof code === "string") found = code;
  }
  return found;
}

/** Whether either side refused the certificate of the other, which a new certificate may repair. */
export function isCertificateProblem(error: unknown): boolean {
  const code = systemCode(error) ?? "";
  return /^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/.test(code) || /^ERR_SSL_|^EPROTO$/.test(code);
}

/**
 * Decodes google.rpc.BadRequest: https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
 */
function badRequest(bytes: Uint8Array): { path: string; reason: string }[] {
  const violations: { path: string; reason: string }[] = [];
  const outer = new BinaryReader(bytes);
  while (outer.pos < outer.len) {
    const [field, wireType] = outer.tag();
    if (field !== 1) {
      outer.skip(wireType);
      continue;
    }
    const inner = new BinaryReader(outer.bytes());
    const violation = { path: "", reason: "" };
    while (inner.pos < inner.len) {
      const [name, type] = inner.tag();
      if (name === 1) violation.path = inner.string();
      else if (name === 2) violation.reason = inner.string();
      else inner.skip(type);
    }
    violations.push(violation);
  }
  return violations;
}

/** The error of a call in the provider's terms. `host` says which host was asked, for the message. */
export function translate(error: unknown, host: string): Error {
  if (
    error instanceof UnreachableHostError ||
    error instanceof ForeignHostError ||
    error instanceof InvalidFieldsError
  ) {
    return error;
  }
  const connectError = ConnectError.from(error);
  const code = systemCode(error);
  const words = connectError.cause instanceof Error ? connectError.cause.message : connectError.rawMessage;
  const cause = { cause: error };
  if (code !== undefined && foreignCodes.has(code)) {
    return new ForeignHostError(`${host}: something else answers there: ${words}`, cause);
  }
  if (isCertificateProblem(error)) {
    return new UnreachableHostError(`${host}: no connection because of a certificate or clock: ${words}`, cause);
  }
  switch (connectError.code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.Aborted:
    case Code.Internal:
      // Without a code of the system, the host itself answered, and that is its error.
      if (connectError.code !== Code.Internal || code !== undefined) {
        return new UnreachableHostError(`${host}: does not answer: ${words}`, cause);
      }
      break;
    case Code.InvalidArgument: {
      const violations = connectError.details.flatMap((detail) =>
        "type" in detail && detail.type === "google.rpc.BadRequest" ? badRequest(detail.value) : [],
      );
      if (violations.length > 0) {
        const list = violations.map(({ path, reason }) => `${path}: ${reason}`).join("; ");
        return new InvalidFieldsError(`${host} refuses it: ${list}`, violations);
      }
      break;
    }
  }
  return new Error(`${host}: ${connectError.rawMessage}`, cause);
}
