/**
 * Cyclonus, a generator of NetworkPolicy cases with an oracle of its own: tools/pins/cyclonus, built once and run here.
 */
import { execFileSync } from "node:child_process";
import path from "node:path";
import {
  networkPolicyFromKubernetes,
  type KubernetesNetworkPolicy,
  type PolicySet,
} from "../../../components/policy/index.js";
import { packageRoot } from "../../../shared/directories.js";

export interface CyclonusPod {
  namespace: string;
  name: string;
  labels: Record<string, string>;
  address: string;
  ports: { name: string; port: number; protocol: "TCP" | "UDP" | "SCTP" }[];
}

export interface CyclonusCell {
  /** Places in the list of pods. */
  from: number;
  to: number;
  /** Place in the destination's list of ports. */
  port: number;
  ingress: boolean;
  egress: boolean;
}

export interface CyclonusStep {
  policies: KubernetesNetworkPolicy[] | null;
  namespaces: Record<string, Record<string, string>>;
  pods: CyclonusPod[];
  cells: CyclonusCell[];
}

export interface CyclonusCase {
  description: string;
  tags: string[];
  steps: CyclonusStep[];
}

let built: string | undefined;

/** Runs the tool, building it first on a machine that has not yet: about two minutes. */
function cyclonus(args: string[], input?: string): string {
  const repository = packageRoot();
  built ??= execFileSync(
    path.join(repository, "provider/local/patching/tools/go-tool.sh"),
    [path.join(repository, "tools/pins/cyclonus")],
    { encoding: "utf8" },
  ).trim();
  return execFileSync(path.join(built, "cyclonus"), args, { encoding: "utf8", input, maxBuffer: 1 << 28 });
}

/** The cases of a family: their prefixes and pods have addresses of it. */
export const cyclonusCases = (family: 4 | 6): CyclonusCase[] =>
  JSON.parse(cyclonus(["cases", String(family)])) as CyclonusCase[];

export interface CyclonusPeer {
  /** Absent: something outside. */
  namespace?: string;
  namespaceLabels?: Record<string, string>;
  labels?: Record<string, string>;
  address: string;
}

export interface CyclonusTuple {
  from: number;
  to: number;
  protocol: "TCP" | "UDP" | "SCTP";
  port: number;
  /** The destination's name for the port. */
  name: string;
}

export interface CyclonusQuestion {
  policies: KubernetesNetworkPolicy[];
  peers: CyclonusPeer[];
  tuples: CyclonusTuple[];
}

/** What Cyclonus' oracle says of each tuple of each question. */
export function cyclonusVerdicts(questions: CyclonusQuestion[]): { ingress: boolean; egress: boolean }[][] {
  const lines = cyclonus(["verdicts"], questions.map((question) => JSON.stringify(question)).join("\n"));
  return lines
    .trim()
    .split("\n")
    .map((line) =>
      (JSON.parse(line) as number[]).map((bits) => ({ egress: (bits & 1) !== 0, ingress: (bits & 2) !== 0 })),
    );
}

/** A step's policies and pods as Palisade's. */
export const policySetOf = ({ policies, namespaces, pods }: CyclonusStep): PolicySet => ({
  networkPolicies: (policies ?? []).map(networkPolicyFromKubernetes),
  endpoints: pods.map(({ namespace, name, labels, address, ports }) => ({
    namespace,
    name,
    labels,
    ports,
    addresses: [address],
  })),
  namespaces: Object.entries(namespaces).map(([name, labels]) => ({ name, labels })),
});

/** Whose address is whose, by the names of the compiled form. */
export const addressesOf = (pods: readonly CyclonusPod[]): Map<string, string> =>
  new Map(pods.map(({ namespace, name, address }) => [address, `${namespace}/${name}`]));
