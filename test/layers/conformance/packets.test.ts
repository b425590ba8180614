/**
 * Rows N1 and N2 with real packets: the same cases as from the compiled form alone, through the datapath between
 * network namespaces, which are connected by veth on this machine and by netkit in a guest. Every cell is a connection
 * that is made, or a datagram that is answered, or not.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CompiledPolicy, compileNetworkPolicies } from "../../../components/policy/index.js";
import { report } from "../../support/acceptance/report.js";
import { withoutOneRule } from "./control.js";
import { cyclonusCases, policySetOf } from "./cyclonus.js";
import { interpreter } from "./interpreter.js";
import { Lab, type LabEndpoint, labIsMissing, type LabOptions, type LabProbe } from "./lab.js";
import { tierAddress, tierCases, tierPods } from "./tiers.js";

const minutes = 60_000;
const families = [4, 6] as const;
type Family = (typeof families)[number];
/** PALISADE_FAMILY=4 or 6 runs one; all of both takes more than an hour. */
const wanted = families.filter((family) => [undefined, String(family)].includes(process.env.PALISADE_FAMILY));

interface Setting extends LabOptions {
  /** Of the parts' names. */
  prefix: string;
  /** Of how many cases one is run. */
  sampled: { cyclonus: number; tiers: number };
}

const wholly = { cyclonus: 1, tiers: 1 };
const settings: (Setting & Required<LabOptions>)[] = [
  { links: "veth", guest: false, prefix: "", sampled: wholly },
  // The guest is emulated, and takes some ten times as long; PALISADE_CASES=all runs all there, too.
  {
    links: "netkit",
    guest: true,
    prefix: "netkit ",
    sampled: process.env.PALISADE_CASES === "all" ? wholly : { cyclonus: 16, tiers: 6 },
  },
];

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

/** One of n, from the middle of the first n. */
const sample = <T>(list: T[], n: number): T[] => list.filter((_, index) => index % n === Math.floor(n / 2));

/** What is left out of a sample, for the report. */
const leftOut = (n: number): { missing?: string } =>
  n === 1 ? {} : { missing: `one case in ${n} only; make conformance runs all` };

/** Says how far a long run is, every minute. */
async function forEach<T>(title: string, list: T[], run: (each: T) => Promise<unknown>): Promise<void> {
  let said = Date.now();
  for (const [index, each] of list.entries()) {
    await run(each);
    if (Date.now() - said < minutes) continue;
    said = Date.now();
    console.log(`${title}: ${index + 1} of ${list.length}`);
  }
}

const cyclonusCasesOf = (family: Family): PacketCase[][] =>
  cyclonusCases(family).map(({ description, steps }) =>
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

function cyclonusEndpoints(): LabEndpoint[] {
  const [ipv4, ipv6] = families.map(
    (family) =>
      new Map(
        cyclonusCases(family).flatMap(({ steps }) =>
          steps.flatMap(({ pods }) => pods.map(({ namespace, name, address }) => [`${namespace}/${name}`, address])),
        ),
      ),
  ) as [Map<string, string>, Map<string, string>];
  return [...ipv4].map(([name, address]) => ({ name, ipv4: address, ipv6: ipv6.get(name) ?? "" }));
}

const tierEndpoints = (): LabEndpoint[] =>
  tierPods.map(({ house, name }, place) => ({
    name: `${house}/${name}`,
    ipv4: tierAddress(4, place),
    ipv6: tierAddress(6, place),
  }));

function tierPodName(pod: string): string {
  const found = tierPods.find(({ house, number }) => `${house}/${number}` === pod);
  return `${found?.house}/${found?.name}`;
}

describe.each(settings)("with real packets on $links", ({ links, guest, prefix, sampled }) => {
  const missing = labIsMissing({ guest });
  if (missing !== undefined) {
    it.for(["N1", "N2"])("%s", (id, context) => {
      for (const family of wanted) {
        report({
          table: "conformance",
          id,
          part: `${prefix}packets IPv${family}`,
          observed: "",
          pass: true,
          seconds: 0,
          evidence: "",
          missing: `${prefix}packets, IPv${family}: ${missing}`,
        });
      }
      context.skip(missing);
    });
    return;
  }

  let lab: Lab;
  // One for the pods of both suites: a guest takes a while to start.
  beforeAll(async () => {
    lab = await Lab.start([...cyclonusEndpoints(), ...tierEndpoints()], { guest, links });
  }, 15 * minutes);
  afterAll(() => lab.close(), 5 * minutes);

  it.each(wanted)(
    "Cyclonus' cases, IPv%i: every cell equals the oracle's, and a missing rule is seen",
    async (family) => {
      const started = Date.now();
      const cases = sample(cyclonusCasesOf(family), sampled.cyclonus).flat();
      const outcome = empty();
      await forEach(`${prefix}N1, IPv${family}`, cases, (each) => run(lab, each, outcome));
      // Steps with a rule left out that a cell shows: one in ten once more.
      const lacking = cases.flatMap((each) => {
        const policy = withoutOneRule(each.policy);
        const predicted = policy === undefined ? 0 : cellsThatChange(each, policy);
        return policy === undefined || predicted === 0 ? [] : [{ each, policy, predicted }];
      });
      const controls = { made: 0, seen: 0 };
      for (const { each, policy, predicted } of lacking.filter((_, index) => index % 10 === 0)) {
        controls.made += 1;
        if ((await run(lab, { ...each, policy }, empty())) === predicted) controls.seen += 1;
      }
      const pass =
        outcome.wrong.length === 0 && controls.made > 10 / sampled.cyclonus && controls.seen === controls.made;
      report({
        table: "conformance",
        id: "N1",
        part: `${prefix}packets IPv${family}`,
        observed: `packets, IPv${family}, ${links}: ${outcome.wrong.length} of ${outcome.probes} cells differ`,
        control: `packets, IPv${family}, ${links}: one rule left out of ${controls.made} policies: cells differ ${controls.seen} times`,
        pass,
        seconds: (Date.now() - started) / 1000,
        evidence: evidence(outcome),
        ...leftOut(sampled.cyclonus),
      });
      expect(outcome.wrong).toEqual([]);
      expect(controls.seen).toBe(controls.made);
      expect(pass).toBe(true);
    },
    90 * minutes,
  );

  it.each(wanted)(
    "network-policy-api's cases, IPv%i: every probe has the verdict that the tests expect",
    async (family) => {
      const started = Date.now();
      const outcome = empty();
      let denied = 0;
      let unguarded = 0;
      const cases = sample(tierCases(family), sampled.tiers);
      await forEach(`${prefix}N2, IPv${family}`, cases, async ({ name, policies, probes }) => {
        const each = {
          name,
          policy: compileNetworkPolicies(policies),
          probes: probes.map(({ from, to, protocol, port }) => ({
            from: tierPodName(from),
            to: tierPodName(to),
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
      });
      const pass = outcome.wrong.length === 0 && denied > 0 && unguarded === denied;
      report({
        table: "conformance",
        id: "N2",
        part: `${prefix}packets IPv${family}`,
        observed: `packets, IPv${family}, ${links}: ${outcome.wrong.length} of ${outcome.probes} probes differ`,
        control: `packets, IPv${family}, ${links}: without the policies of the tiers ${unguarded} of ${denied} denied probes are answered`,
        pass,
        seconds: (Date.now() - started) / 1000,
        evidence: evidence(outcome),
        ...leftOut(sampled.tiers),
      });
      expect(outcome.wrong).toEqual([]);
      expect(unguarded).toBe(denied);
      expect(pass).toBe(true);
    },
    30 * minutes,
  );
});
