/**
 * First contact with a host, and a new certificate for a host whose certificate has expired: enrollment.proto over the
 * serial port that only its hypervisor can open.
 */
import type { Socket } from "node:net";
import { create, toJsonString } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  EnrollmentRequestSchema,
  EnrollmentResponseSchema,
  type EnrollmentRequest,
} from "../../../hosts/api/gen/palisade/agent/v1/enrollment_pb.js";
import type { Authority } from "../certificates/authority.js";
import { CertificateRefusedError } from "../certificates/host-certificate.js";
import { issueHostCertificate, type IdentityRecord } from "../certificates/host-identity.js";
import { listenForMessages } from "./serial-messages.js";

export interface EnrollmentOptions {
  authority: Authority;
  /** Decides who may enroll, and is written before a certificate is given. */
  record: IdentityRecord;
  /** Called when a request is refused. */
  refuse(reason: string): void;
}

/** Answers requests on a connection until it ends. `enrolled` resolves with the first host that got a certificate. */
export class EnrollmentServer {
  readonly enrolled: Promise<string>;
  private resolve!: (hostId: string) => void;
  private busy: Promise<void> = Promise.resolve();

  constructor(
    private readonly socket: Socket,
    private readonly options: EnrollmentOptions,
  ) {
    this.enrolled = new Promise((resolve) => (this.resolve = resolve));
    listenForMessages(socket, EnrollmentRequestSchema, (request) => {
      // One after the other, because the host repeats its request while it waits.
      this.busy = this.busy.then(() => this.answer(request)).catch((error: Error) => options.refuse(error.message));
    });
  }

  /** False once the connection has ended. */
  get isOpen(): boolean {
    return !this.socket.destroyed;
  }

  close(): void {
    this.socket.destroy();
  }

  private async answer(request: EnrollmentRequest): Promise<void> {
    const { authority, record } = this.options;
    const response = create(EnrollmentResponseSchema);
    try {
      response.certificateChain = await issueHostCertificate(authority, request, record);
      response.certificateAuthority = authority.certificate;
      response.revokedSerialNumbers = authority.revoked;
    } catch (error) {
      if (!(error instanceof CertificateRefusedError)) throw error;
      response.certificateChain = "";
      response.error = error.message;
      this.options.refuse(error.message);
    }
    if (this.socket.destroyed) return;
    // Now, because the record may have waited for another host's.
    response.signerTime = timestampNow();
    this.socket.write(`${toJsonString(EnrollmentResponseSchema, response)}\n`);
    if (!response.error) this.resolve(request.hostId);
  }
}
