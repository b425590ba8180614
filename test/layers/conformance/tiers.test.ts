/** Row N2, the compiler's part: each probe of network-policy-api's tests, from the compiled form alone. */
import { expect, it } from "vitest";
import { compileNetworkPolicies, type PolicySet } from "../../../components/policy/index.js";
import { report } from "../../support/acceptance/report.js";
import { interpreter } from "./interpreter.js";
import { tierAddress, tierCases, tierPods, type Family, type TierProbe } from "./tiers.js";

/** The verdicts on probes that are not those which the tests expect. */
function differences(policies: PolicySet, probes: TierProbe[], family: Family): string[] {
  const addresses = new Map(tierPods.map(({ house, name }, place) => [tierAddress(family, place), `${house}/${name}`]));
  const places = new Map(tierPods.map(({ house, number }, place) => [`${house}/${number}`, place]));
  const { verdict } = interpreter(compileNetworkPolicies(policies), addresses);
  const address = (pod: string): string => tierAddress(family, places.get(pod) ?? NaN);
  return probes.flatMap(({ from, to, protocol, port, allowed }) => {
    const { ingress, egress } = verdict({ from: address(from), to: address(to), protocol, port });
    return (ingress && egress) === allowed
      ? []
      : [`${from} to ${to} ${protocol} ${port}: not ${allowed ? "allowed" : "denied"}`];
  });
}

it.each([4, 6] as const)("IPv%i: every probe has the verdict that network-policy-api expects", (family) => {
  const started = Date.now();
  const cases = tierCases(family);
  const wrong = cases.flatMap(({ name, policies, probes }) =>
    differences(policies, probes, family).map((difference) => `${name}: ${difference}`),
  );
  const all = cases.flatMap(({ probes }) => probes);
  const denied = all.filter(({ allowed }) => !allowed).length;
  // The control: without the tiers' policies nothing of them is denied.
  const unguarded = cases.flatMap(({ policies, probes }) =>
    differences({ ...policies, clusterNetworkPolicies: [] }, probes, family),
  ).length;
  const pass = wrong.length === 0 && unguarded === denied;
  report({
    table: "conformance",
    id: "N2",
    part: `compiled form IPv${family}`,
    observed: `compiled form, IPv${family}: ${cases.length} cases, ${wrong.length} of ${all.length} probes differ (${denied} are denied)`,
    control: `IPv${family}: without the policies of the tiers ${unguarded} of ${denied} denied probes pass`,
    pass,
    seconds: (Date.now() - started) / 1000,
    evidence: wrong.slice(0, 20).join("\n"),
  });
  expect(wrong).toEqual([]);
  expect(unguarded).toBe(denied);
});
