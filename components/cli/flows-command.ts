/** `palisade flows`: what packets of the stack's groups do, and what was dropped and why. */
import { isIP } from "node:net";
import { parseArgs } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  FlowDirection,
  FlowVerdict,
  type Flow,
  type FlowPeer,
  type LostFlows,
} from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { withAgent } from "./agent.js";
import { hostPort } from "../shared/host-port.js";
import type { Command } from "./commands.js";
import { type HostRecord, readStack } from "./stack-state.js";
import { printable } from "./table.js";

const options = {
  direction: { type: "string" },
  verdict: { type: "string" },
  reason: { type: "string" },
  port: { type: "string" },
  address: { type: "string" },
  since: { type: "string" },
  last: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  host: { type: "string" },
  stack: { type: "string" },
} as const;

const directions = { ingress: FlowDirection.INGRESS, egress: FlowDirection.EGRESS };
const verdicts = { forwarded: FlowVerdict.FORWARDED, dropped: FlowVerdict.DROPPED };

export const flowsCommand: Command = {
  usage:
    "flows [GROUP] [--direction ingress|egress] [--verdict forwarded|dropped] [--reason REASON] [--port PORT] [--address ADDRESS] " +
    "[--since TIME] [--last] [--json] [--host HOST] [--stack STACK]",
  help: "opened flows and dropped packets as they happen; --last: only what the hosts have kept",
  async run(args) {
    const { values, positionals } = parseArgs({ args, allowPositionals: true, options });
    if (positionals.length > 1) {
      process.stderr.write("palisade flows: expected one group at most, e.g. palisade flows web\n");
      return 2;
    }
    const request = {
      group: positionals[0] ?? "",
      direction: choice("--direction", values.direction, directions),
      verdict: choice("--verdict", values.verdict, verdicts),
      reason: values.reason ?? "",
      port: portOf(values.port),
      address: addressOf(values.address),
      since: sinceOf(values.since, Date.now()),
      follow: !values.last,
    };
    const hosts = reachable((await readStack(values.stack)).hosts, values.host);
    const print = values.json ? printJson : printText;
    const several = hosts.length > 1;
    const watching = hosts.map(({ name, connection }) =>
      withAgent(connection, async ({ networks }) => {
        // As long as the reader wants: no time-out.
        for await (const { content } of networks.streamFlows(request, { timeoutMs: request.follow ? 0 : 60_000 })) {
          if (content.case === "flow") print.flow(content.value, several ? name : undefined);
          else if (content.case === "lost") print.lost(content.value, name);
        }
      }),
    );
    const failures = (await Promise.allSettled(watching)).filter((result) => result.status === "rejected");
    for (const { reason } of failures) process.stderr.write(`palisade flows: ${(reason as Error).message}\n`);
    return failures.length > 0 ? 1 : 0;
  },
};

function choice<T>(option: string, text: string | undefined, known: Record<string, T>): T | undefined {
  if (text === undefined || Object.hasOwn(known, text)) return text === undefined ? undefined : known[text];
  throw new Error(`${option}: '${text}' must be ${Object.keys(known).join(" or ")}`);
}

function portOf(text: string | undefined): number {
  if (text === undefined) return 0;
  if (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535) return Number(text);
  throw new Error(`--port: '${text}' must be a whole number from 1 to 65535`);
}

/** The host reads prefixes itself, and says what is wrong with one. */
function addressOf(text: string | undefined): string {
  if (text === undefined || isIP(text.replace(/\/\d{1,3}$/, ""))) return text ?? "";
  throw new Error(`--address: '${text}' must be an address or a prefix, e.g. 192.0.2.0/24`);
}

/** A time as RFC 3339 has it, or how long ago: 90s, 5m, 2h. */
function sinceOf(text: string | undefined, now: number): Timestamp | undefined {
  if (text === undefined) return undefined;
  const ago = /^(\d+)([smh])$/.exec(text);
  const unit = { s: 1000, m: 60_000, h: 3_600_000 }[ago?.[2] ?? ""];
  const time = ago && unit ? now - Number(ago[1]) * unit : Date.parse(text);
  if (Number.isNaN(time))
    throw new Error(`--since: '${text}' must be a time, 2026-01-31T12:00:00Z, or how long ago, 5m`);
  return timestampFromDate(new Date(time));
}

/** The hosts to ask: all, or the one named. */
function reachable(hosts: HostRecord[], name: string | undefined) {
  const asked = name === undefined ? hosts : hosts.filter((host) => host.name === name);
  if (asked.length === 0) {
    const names = hosts.map((host) => host.name).join(", ") || "none";
    throw new Error(
      name === undefined ? "the stack has no hosts" : `--host: '${name}' is no host of the stack; its hosts: ${names}`,
    );
  }
  return asked.map((host) => {
    if (host.connection) return { name: host.name, connection: host.connection };
    throw new Error(`host ${host.name}: has not answered yet`);
  });
}

const verdictName = (flow: Flow): string => (flow.verdict === FlowVerdict.FORWARDED ? "forwarded" : "dropped");

const total = ({ ring, caller }: LostFlows): bigint => ring + caller;

interface Printer {
  /** @param host its name, where there are several */
  flow(flow: Flow, host: string | undefined): void;
  lost(lost: LostFlows, host: string): void;
}

const printText: Printer = {
  flow(flow, host) {
    const peer = ({ endpoint, address, port }: FlowPeer) => {
      const where = port === 0 ? address : hostPort(address, port);
      return endpoint === "" ? where : `${endpoint} (${where})`;
    };
    const { time, source, destination, protocol, reason, hook, length } = flow;
    const words = [
      ...(time ? [timestampDate(time).toISOString()] : []),
      ...(host === undefined ? [] : [host]),
      verdictName(flow),
      ...(flow.verdict === FlowVerdict.FORWARDED ? [] : [reason]),
      protocol,
      source ? peer(source) : "?",
      "→",
      destination ? peer(destination) : "?",
      `${hook}, ${length} bytes`,
    ];
    process.stdout.write(`${words.map(printable).join("  ")}\n`);
  },
  lost(lost, host) {
    if (total(lost) === 0n) return;
    const parts = [
      ...(lost.ring > 0n ? [`${lost.ring} for which the kernel's ring was full`] : []),
      ...(lost.caller > 0n ? [`${lost.caller} for which this command was too slow`] : []),
    ];
    process.stderr.write(
      `palisade flows: host ${host}: not shown since the start: ${parts.join(", ")}; the packets went their way\n`,
    );
  },
};

/** A line for each flow, and for each report of what is not shown. */
const printJson: Printer = {
  flow(flow, host) {
    const peer = (of: FlowPeer | undefined) =>
      of && {
        address: of.address,
        ...(of.port === 0 ? {} : { port: of.port }),
        ...(of.endpoint === "" ? {} : { endpoint: of.endpoint }),
        identity: of.identity,
      };
    const { time, protocol, reason, hook, length } = flow;
    writeJson({
      ...(time ? { time: toJson(TimestampSchema, time) } : {}),
      ...(host === undefined ? {} : { host }),
      ...{ verdict: verdictName(flow), reason, protocol },
      ...{ source: peer(flow.source), destination: peer(flow.destination), hook, length },
    });
  },
  lost(lost, host) {
    if (total(lost) > 0n) writeJson({ host, lost: { ring: Number(lost.ring), caller: Number(lost.caller) } });
  },
};

const writeJson = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
