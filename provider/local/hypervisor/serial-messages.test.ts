import { PassThrough } from "node:stream";
import type { Socket } from "node:net";
import { expect, it } from "vitest";
import { TemplateWaitingSchema } from "../../../hosts/api/gen/palisade/agent/v1/template_pb.js";
import { listenForMessages, parseMessage } from "./serial-messages.js";

const read = (line: string) => parseMessage(TemplateWaitingSchema, line);

it("reads a message, and skips fields that it does not know", () => {
  expect(read('{"ready":true}')).toMatchObject({ ready: true, released: false });
  expect(read(' {"ready":true,"later":1}\r')).toMatchObject({ ready: true });
});

it.each([
  ["the rest of an older message", 'Message":""}'],
  ["an empty line", ""],
  ["half a message", '{"ready":'],
  ["a field of another type", '{"ready":"yes"}'],
  ["text", "login:"],
  ["too long a line", `{"readyMessage":"${"x".repeat(64 * 1024)}"}`],
])("takes %s for no message", (_name, line) => expect(read(line)).toBeUndefined());

it("hands over each message of a connection, and survives its error", async () => {
  const connection = new PassThrough();
  const seen: string[] = [];
  listenForMessages(connection as unknown as Socket, TemplateWaitingSchema, (message) => {
    seen.push(message.readyMessage);
  });
  connection.write('er"}\n{"readyMessage":"one"}\nnoise\n{"readyMe');
  connection.write('ssage":"two"}\n');
  await expect.poll(() => seen).toEqual(["one", "two"]);
  const closed = new Promise((resolve) => connection.once("close", resolve));
  connection.destroy(new Error("ECONNRESET"));
  await closed;
});
