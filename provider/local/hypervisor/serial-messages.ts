/** JSON messages of a guest, one a line, over a serial port that only its hypervisor can open. */
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { fromJsonString, type DescMessage, type MessageShape } from "@bufbuild/protobuf";

/** A line longer than this, in characters, is no message. */
const maximumLine = 64 * 1024;

/** The message of a line; undefined when it holds none. */
export function parseMessage<Schema extends DescMessage>(
  schema: Schema,
  line: string,
): MessageShape<Schema> | undefined {
  // The first line after connecting may be the rest of an older one.
  if (line.length > maximumLine || !line.trimStart().startsWith("{")) return undefined;
  try {
    return fromJsonString(schema, line, { ignoreUnknownFields: true });
  } catch {
    return undefined;
  }
}

/** Calls `onMessage` with each message that arrives on this connection. Errors of the connection only close it. */
export function listenForMessages<Schema extends DescMessage>(
  socket: Socket,
  schema: Schema,
  onMessage: (message: MessageShape<Schema>) => void,
): void {
  const lines = createInterface({ input: socket });
  // The reader repeats the errors of what it reads.
  for (const emitter of [socket, lines]) emitter.on("error", () => undefined);
  lines.on("line", (line) => {
    const message = parseMessage(schema, line);
    if (message !== undefined) onMessage(message);
  });
}
