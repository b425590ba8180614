/**
 * Rows N1 and N2 with real packets: the same cases as from the compiled form alone, through the datapath between network namespaces.
 * Every cell is a connection that is made, or a datagram that is answered, or not.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CompiledPolicy, compileNetworkPolicies } from "../../components/policy/index.js";
import { report } from "../acceptance/report.js";
import { withoutOneRule } from "./control.js";
import { cyclonusCases, policySetOf } from "./cyclonus.js";
import { interpreter } from "./interpreter.js";
import { Lab, type LabEndpoint, labIsMissing, type LabProbe } from "./lab.js";
import { tierAddress, tierCases, tierPods } from "./tiers.js";

const minutes = 60_000;
const families = [4, 6] as const;
type Family = (typeof families)[number];

interface PacketCase {
  name: string;
  policy: CompiledPolicy;
  probes: LabProbe[];
  allowed: boolean[];
}

interface Outcome {
  probes: number;
  wrong: string[];
  reasons: Record<string, number>;
}

async function run(lab: Lab, { name, policy, probes, allowed }: PacketCase, outcome: Outcome): Promise<number> {
  await lab.apply(policy);
  const results = await lab.probe(probes);
  let differing = 0;
  results.forEach((result, index) => {
    const { from, to, protocol, port } = probes[index] as LabProbe;
    outcome.probes += 1;
    const reason = result.reason ?? "answered";
    outcome.reasons[reason] = (outcome.reasons[reason] ?? 0) + 1;
    if (result.allowed === allowed[index]) return;
    differing += 1;
    outcome.wrong.push(`${name}: ${from} to ${to} ${protocol} ${port}: ${reason}`);
  });
  return differing;
}

const empty = (): Outcome => ({ probes: 0, wrong: [], reasons: {} });

/** What decided the verdicts, for the report. */
const evidence = ({ reasons, wrong }: Outcome): string => [JSON.stringify(reasons), ...wrong.slice(0, 20)].join("\n");

/** How many probes have another verdict than a case expects, under another policy. */
function cellsThatChange({ probes, allowed }: PacketCase, policy: CompiledPolicy): number {
  // Endpoints are known by their names here, whatever their addresses are.
  const { verdict } = interpreter(policy, new Map(policy.endpoints.map(({ name }) => [name, name])));
  return probes.filter(({ from, to, protocol, port }, index) => {
    const { ingress, egress } = verdict({ from, to, protocol, port });
    return (ingress && egress) !== allowed[index];
  }).length;
}

const missing = labIsMissing();

if (missing !== undefined) {
  it.for(["N1", "N2"])("%s with real packets", (id, context) => {
    for (const family of families) {
      report({
        table: "conformance",
        id,
        part: `packets IPv${family}`,
        observed: "",
        pass: true,
        seconds: 0,
        evidence: "",
        missing: `packets, IPv${family}: ${missing}`,
      });
    }
    context.skip(missing);
  });
}

describe.skipIf(missing !== undefined)("Cyclonus' cases with real packets", { timeout: 20 * minutes }, () => {
  let lab: Lab;

  const casesOf = (family: Family): PacketCase[] =>
    cyclonusCases(family).flatMap(({ description, steps }) =>
      steps.map((step, index) => {
        const name = (place: number): string => `${step.pods[place]?.namespace}/${step.pods[place]?.name}`;
        return {
          name: `${description}, step ${index}`,
          policy: compileNetworkPolicies(policySetOf(step)),
          probes: step.cells.map(({ from, to, port }) => {
            const served = step.pods[to]?.ports[port];
            if (!served) throw new Error("a cell is about a port that is not there");
            return { from: name(from), to: name(to), family, protocol: served.protocol, port: served.port };
          }),
          allowed: step.cells.map(({ ingress, egress }) => ingress && egress),
        };
      }),
    );

  beforeAll(async () => {
    const [ipv4, ipv6] = families.map(
      (family) =>
        new Map(
          cyclonusCases(family).flatMap(({ steps }) =>
            steps.flatMap(({ pods }) => pods.map(({ namespace, name, address }) => [`${namespace}/${name}`, address])),
          ),
        ),
    ) as [Map<string, string>, Map<string, string>];
    lab = await Lab.start(
      [...ipv4].map(([name, address]): LabEndpoint => ({ name, ipv4: address, ipv6: ipv6.get(name) ?? "" })),
    );
  }, 5 * minutes);
  afterAll(() => lab.close());

  it.each(families)(
    "IPv%i: every cell equals the oracle's, and a missing rule is seen",
    async (family) => {
      const started = Date.now();
      const cases = casesOf(family);
      const outcome = empty();
      for (const each of cases) await run(lab, each, outcome);
      // One step in ten once more, with a rule left out that a cell shows.
      const controls = { made: 0, seen: 0 };
      for (const each of cases.filter((_, index) => index % 10 === 0)) {
        const policy = withoutOneRule(each.policy);
        const predicted = policy === undefined ? 0 : cellsThatChange(each, policy);
        if (policy === undefined || predicted === 0) continue;
        controls.made += 1;
        if ((await run(lab, { ...each, policy }, empty())) === predicted) controls.seen += 1;
      }
      const pass = outcome.wrong.length === 0 && controls.made > 10 && controls.seen === controls.made;
      report({
        table: "conformance",
        id: "N1",
        part: `packets IPv${family}`,
        observed: `packets, IPv${family}, veth: ${outcome.wrong.length} of ${outcome.probes} cells differ`,
        control: `packets, IPv${family}: one rule left out of ${controls.made} policies: cells differ ${controls.seen} times`,
        pass,
        seconds: (Date.now() - started) / 1000,
        evidence: evidence(outcome),
        missing: "netkit, in the guest",
      });
      expect(outcome.wrong).toEqual([]);
      expect(controls.seen).toBe(controls.made);
      expect(pass).toBe(true);
    },
  );
});

describe.skipIf(missing !== undefined)(
  "network-policy-api's cases with real packets",
  { timeout: 10 * minutes },
  () => {
    let lab: Lab;

    const nameOf = (pod: string): string => {
      const found = tierPods.find(({ house, number }) => `${house}/${number}` === pod);
      return `${found?.house}/${found?.name}`;
    };

    beforeAll(async () => {
      lab = await Lab.start(
        tierPods.map(({ house, name }, place) => ({
          name: `${house}/${name}`,
          ipv4: tierAddress(4, place),
          ipv6: tierAddress(6, place),
        })),
      );
    }, 5 * minutes);
    afterAll(() => lab.close());

    it.each(families)("IPv%i: every probe has the verdict that the tests expect", async (family) => {
      const started = Date.now();
      const outcome = empty();
      let denied = 0;
      let unguarded = 0;
      for (const { name, policies, probes } of tierCases(family)) {
        const each = {
          name,
          policy: compileNetworkPolicies(policies),
          probes: probes.map(({ from, to, protocol, port }) => ({
            from: nameOf(from),
            to: nameOf(to),
            family,
            protocol,
            port,
          })),
          allowed: probes.map(({ allowed }) => allowed),
        };
        denied += each.allowed.filter((allowed) => !allowed).length;
        await run(lab, each, outcome);
        const without = compileNetworkPolicies({ ...policies, clusterNetworkPolicies: [] });
        unguarded += await run(lab, { ...each, policy: without }, empty());
      }
      const pass = outcome.wrong.length === 0 && unguarded === denied;
      report({
        table: "conformance",
        id: "N2",
        part: `packets IPv${family}`,
        observed: `packets, IPv${family}, veth: ${outcome.wrong.length} of ${outcome.probes} probes differ`,
        control: `packets, IPv${family}: without the policies of the tiers ${unguarded} of ${denied} denied probes are answered`,
        pass,
        seconds: (Date.now() - started) / 1000,
        evidence: evidence(outcome),
        missing: "netkit, in the guest",
      });
      expect(outcome.wrong).toEqual([]);
      expect(unguarded).toBe(denied);
    });
  },
);
