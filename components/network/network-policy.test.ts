import * as pulumi from "@pulumi/pulumi";
import { expect, it } from "vitest";
import { NestedHost } from "../host/nested-host.js";
import { ArgumentError } from "../internal/arguments.js";
import { answer, connection, digest } from "../internal/testing/answers.js";
import { quiet, record, settled, valueOf } from "../internal/testing/recorder.js";
import { compileNetworkPolicies } from "../policy/compile.js";
import { compiledPolicy, type HostNetworkPolicyArgs, NetworkPolicy } from "./network-policy.js";

const groups = [
  { name: "web", labels: { app: "web" } },
  { name: "front", labels: { app: "front" } },
];
const web = {
  name: "web",
  groupSelector: { matchLabels: { app: "web" } },
  ingress: [{ from: [{ groupSelector: { matchLabels: { app: "front" } } }], ports: [{ port: 80 }] }],
};

const policies = async (make: () => void) => {
  const registrations = await record({ answer });
  make();
  await settled();
  return registrations.filter(({ type }) => type === "palisade:index:NetworkPolicy");
};

it("declares all policies of a host, compiled, whether they are outputs or not", async () => {
  const registered = await policies(() => {
    new NetworkPolicy("plain", { host: connection, groups, networkPolicies: [web] });
    new NetworkPolicy("outputs", {
      host: connection,
      groups: [{ name: pulumi.output("web"), labels: { app: "web" } }, groups[1]!],
      networkPolicies: pulumi.output([web]),
    });
  });
  const compiled = compileNetworkPolicies({ endpoints: groups, networkPolicies: [web] });
  expect(compiled.endpoints.map(({ name }) => name)).toEqual(["default/front", "default/web"]);
  expect(registered.map(({ inputs }) => inputs["policy"])).toEqual([compiled, compiled]);
});

it("goes with its host's machine, where that is known", async () => {
  const registered = await policies(() => {
    const host = new NestedHost("edge", { image: digest, keysDirectory: "/keys" });
    new NetworkPolicy("known", { host: host.connection, groups });
    new NetworkPolicy("unknown", { host: connection, groups });
  });
  expect(Object.fromEntries(registered.map(({ name, options }) => [name, options["deletedWith"]]))).toEqual({
    known: "palisade:index:NestedHost$palisade:index:VirtualMachine::edge-machine",
    unknown: undefined,
  });
});

const closed = { name: "web", groupSelector: { matchLabels: { app: "web" } } };
const withRule = (rule: object) => ({ networkPolicies: [{ ...closed, ingress: [rule] }] });
const nothing = (): unknown => pulumi.output(undefined);

it.each<[string, () => object]>([
  ["peers", () => withRule({ from: nothing() })],
  ["ports", () => withRule({ from: [{ entities: ["host"] }], ports: nothing() })],
  ["a port", () => withRule({ from: [{ entities: ["host"] }], ports: [{ protocol: "TCP", port: nothing() }] })],
  ["a selector's labels", () => withRule({ from: [{ groupSelector: { matchLabels: nothing() } }] })],
  ["all policies", () => ({ networkPolicies: nothing() })],
  ["rules of a denial", () => ({ networkPolicies: [{ ...closed, action: "Deny", ingress: nothing() }] })],
  ["the directions", () => ({ networkPolicies: [{ ...closed, policyTypes: nothing() }] })],
  ["the labels of a group", () => ({ endpoints: [{ name: "web", labels: nothing() }] })],
  [
    "peers within an output",
    () => ({ networkPolicies: pulumi.output([{ ...closed, ingress: [{ from: undefined }] }]) }),
  ],
])("opens nothing when %s turn out not to be given", async (_what, make) => {
  const set = { endpoints: groups, networkPolicies: [closed], ...make() };
  const compiled = compiledPolicy("guard", set) as pulumi.Output<unknown>;
  await expect(valueOf(quiet(compiled))).rejects.toThrow(/is an output without a value|must not be null/);
});

it("takes null for what is not given, where nothing is opened by it", async () => {
  const [registered] = await policies(() => {
    new NetworkPolicy("plain", {
      host: connection,
      groups: [{ name: "web", labels: { app: "web" }, ports: null, addresses: null }],
      networkPolicies: [{ ...closed, namespace: null, action: null, policyTypes: null, ingress: null, egress: null }],
      clusterNetworkPolicies: null,
    } as never);
  });
  const expected = compileNetworkPolicies({ endpoints: [groups[0]!], networkPolicies: [closed] });
  expect(registered?.inputs["policy"]).toEqual(expected);
});

it.each<[string, Partial<Record<keyof HostNetworkPolicyArgs, unknown>>, RegExp]>([
  ["a group without a name", { groups: [{ labels: {} }] }, /groups\[0\]\.name: is required/],
  ["a label that is none", { groups: [{ name: "web", labels: { app: "-" } }] }, /groups\[0\]\.labels\["app"\] = "-"/],
  [
    "an address range with host bits",
    { networkPolicies: [{ ...web, ingress: [{ from: [{ ipBlock: { cidr: "192.0.2.1/24" } }] }] }] },
    /networkPolicies\[0\]\.ingress\[0\]\.from\[0\]\.ipBlock\.cidr = "192\.0\.2\.1\/24": .*192\.0\.2\.0\/24/,
  ],
  // It would select nothing, and leave open what it should close.
  [
    "a namespace that no group is in",
    { networkPolicies: [{ ...web, namespace: "shop" }] },
    /networkPolicies\[0\]\.namespace = "shop": all groups of a host are in the namespace default/,
  ],
  ["a group of another namespace", { groups: [{ name: "web", namespace: "shop" }] }, /groups\[0\]\.namespace = "shop"/],
])("refuses %s by the field's path", (_what, wrong, message) => {
  const make = () =>
    new NetworkPolicy("guard", { host: connection, groups, networkPolicies: [web], ...wrong } as never);
  expect(make).toThrow(ArgumentError);
  expect(make).toThrow(/^NetworkPolicy "guard": /);
  expect(make).toThrow(message);
});
