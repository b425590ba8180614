/** Converts errors into those of gRPC. */
import { Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { ErrorResourceInitFailed } from "@pulumi/pulumi/proto/provider_pb.js";
import { Status } from "@pulumi/pulumi/proto/status_pb.js";
import { Any } from "google-protobuf/google/protobuf/any_pb.js";
import type { Struct } from "google-protobuf/google/protobuf/struct_pb.js";
import { PropertyError } from "../backends/errors.js";
import { type PartialFailure } from "./resource.js";

export function rpcError(code: status, message: string): Partial<ServiceError> {
  return { code, details: message, message };
}

/**
 * An error as the engine shows it. Its code says that the resource's state is known, because a half-made resource
 * carries an ownership marker and the next create adopts it. (After unknown and internal errors the engine keeps a
 * pending operation and asks the user.)
 */
export function toRpcError(error: unknown): Partial<ServiceError> {
  if (isRpcError(error)) return error;
  if (!(error instanceof Error)) return rpcError(status.FAILED_PRECONDITION, String(error));
  if (error instanceof PropertyError) return rpcError(status.INVALID_ARGUMENT, error.message);
  if (error.name === "AbortError") return rpcError(status.CANCELLED, error.message);
  if (error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError) {
    return rpcError(status.FAILED_PRECONDITION, `this is a mistake in Palisade, please report it: ${error.stack}`);
  }
  return rpcError(status.FAILED_PRECONDITION, error.message);
}

function isRpcError(error: unknown): error is Partial<ServiceError> {
  return (
    typeof error === "object" && error !== null && "code" in error && "details" in error && !(error instanceof Error)
  );
}

/** The error for a resource that exists but is not as declared: the engine keeps its id, inputs and outputs. */
export function partialFailure(failure: PartialFailure, outputs: Struct, inputs: Struct): Partial<ServiceError> {
  const detail = new ErrorResourceInitFailed();
  detail.setId(failure.id);
  detail.setProperties(outputs);
  detail.setInputs(inputs);
  detail.setReasonsList(failure.reasons);
  const any = new Any();
  any.pack(detail.serializeBinary(), "pulumirpc.ErrorResourceInitFailed");
  const rich = new Status();
  rich.setCode(status.UNKNOWN);
  rich.setMessage(failure.message);
  rich.addDetails(any);
  const metadata = new Metadata();
  // The key under which gRPC carries structured errors.
  metadata.add("grpc-status-details-bin", Buffer.from(rich.serializeBinary()));
  return { ...rpcError(status.UNKNOWN, failure.message), metadata };
}
