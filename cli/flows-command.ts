/** `palisade flows`: what packets of the stack's groups do, and what was dropped and why. */
import { toJson } from "@bufbuild/protobuf";
import { TimestampSchema, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  FlowDirection,
  FlowVerdict,
  type Flow,
  type FlowPeer,
  type LostFlows,
} from "../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { withAgent } from "./agent.js";
import { hostPort } from "../shared/host-port.js";
import { type OutputOptions, writeLine } from "./output.js";
import { findHosts, type ReachableHost, readStack } from "./stack-state.js";
import { printable } from "./table.js";

/** Options of `palisade flows`. */
export interface FlowsOptions extends OutputOptions {
  direction?: "ingress" | "egress";
  verdict?: "forwarded" | "dropped";
  reason?: string;
  port?: number;
  address?: string;
  since?: Date;
  last?: boolean;
  host?: string;
  stack?: string;
}

const directions = { ingress: FlowDirection.INGRESS, egress: FlowDirection.EGRESS };
const verdicts = { forwarded: FlowVerdict.FORWARDED, dropped: FlowVerdict.DROPPED };

/** JSON: a line for each flow, and for each report of what is not shown. */
export async function flows(group: string | undefined, options: FlowsOptions): Promise<number> {
  const request = {
    group: group ?? "",
    direction: options.direction && directions[options.direction],
    verdict: options.verdict && verdicts[options.verdict],
    reason: options.reason ?? "",
    port: options.port ?? 0,
    address: options.address ?? "",
    since: options.since && timestampFromDate(options.since),
    follow: !options.last,
  };
  const hosts = findHosts((await readStack(options.stack)).hosts, options.host, "--host");
  const failures = hosts
    .filter(({ connection }) => !connection)
    .map(({ name }) => `host ${name}: has not answered yet`);
  const report = (failure: string) => void process.stderr.write(`palisade flows: ${failure}\n`);
  failures.forEach(report);
  const print = options.output === "json" ? printJson : printText;
  const several = hosts.length > 1;
  const watch = ({ name, connection }: ReachableHost) =>
    withAgent(connection, async ({ networks }) => {
      // No time-out: flows are followed for as long as the reader wants.
      for await (const { content } of networks.streamFlows(request, { timeoutMs: request.follow ? 0 : 60_000 })) {
        if (content.case === "flow") print.flow(content.value, several ? name : undefined);
        else if (content.case === "lost") print.lost(content.value, name);
      }
    }).catch((error: Error) => {
      // Reported at once, as the other hosts may go on for hours.
      failures.push(error.message);
      report(error.message);
    });
  await Promise.all(hosts.filter((host): host is ReachableHost => host.connection !== undefined).map(watch));
  return failures.length > 0 ? 1 : 0;
}

const verdictName = (flow: Flow): string => (flow.verdict === FlowVerdict.FORWARDED ? "forwarded" : "dropped");

const total = ({ ring, caller }: LostFlows): bigint => ring + caller;

interface Printer {
  /** @param host the host's name, where there are several hosts */
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
    writeLine({
      ...(time ? { time: toJson(TimestampSchema, time) } : {}),
      ...(host === undefined ? {} : { host }),
      ...{ verdict: verdictName(flow), reason, protocol },
      ...{ source: peer(flow.source), destination: peer(flow.destination), hook, length },
    });
  },
  lost(lost, host) {
    if (total(lost) > 0n) writeLine({ host, lost: { ring: Number(lost.ring), caller: Number(lost.caller) } });
  },
};
