/** The provider's side of template.proto: learns when a template can be kept, and releases a clone. */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { create, toJsonString } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  CloneReleaseSchema,
  TemplateWaitingSchema,
  type TemplateWaiting,
} from "../../../hosts/api/gen/palisade/agent/v1/template_pb.js";
import { sleep } from "../../../shared/sleep.js";
import { listenForMessages } from "./serial-messages.js";

/** Bytes of the seed that a clone gets. */
const seedBytes = 64;
/** Long for the few steps that a waiting guest takes, because a busy machine is slow. */
const releaseMilliseconds = 60_000;

/** Calls `onWaiting` with each message of a template on this connection. */
export function listenToTemplate(socket: Socket, onWaiting: (waiting: TemplateWaiting) => void): void {
  listenForMessages(socket, TemplateWaitingSchema, onWaiting);
}

/** Lets the running clone at the other end become a host of its own; returns when the clone confirms it. */
export async function releaseClone(socket: Socket, signal: AbortSignal): Promise<void> {
  let isReleased = false;
  listenToTemplate(socket, ({ released }) => (isReleased ||= released));
  const release = create(CloneReleaseSchema, { seed: randomBytes(seedBytes), time: timestampNow() });
  socket.write(`\n${toJsonString(CloneReleaseSchema, release)}\n`);
  const end = Date.now() + releaseMilliseconds;
  while (!isReleased) {
    if (socket.destroyed) throw new Error("the clone's QEMU closed the template's port");
    if (Date.now() > end) throw new Error(`the clone took no release within ${releaseMilliseconds / 1000} s`);
    await sleep(20, signal);
  }
}
