/** Row N3, the compiler's part: random NetworkPolicies and packets, the compiled form against Cyclonus' matcher. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { compileNetworkPolicies } from "../../../components/policy/index.js";
import { report } from "../../support/acceptance/report.js";
import { addressesOf, cyclonusVerdicts, policySetOf } from "./cyclonus.js";
import { interpreter } from "./interpreter.js";
import { type Question, question } from "./kubernetes-policies.js";

const tuplesOfQuestion = 500;

/** PALISADE_TUPLES asks for more, PALISADE_SEED for those of an earlier run. */
const wanted = Number(process.env.PALISADE_TUPLES ?? 100_000);
const seed = Number(process.env.PALISADE_SEED ?? Date.now() % 2 ** 31);

function verdicts({ policies, pods, peers, tuples }: Question): { ingress: boolean; egress: boolean }[] {
  const namespaces = Object.fromEntries(pods.map(({ namespace }) => [namespace, { ns: namespace }]));
  const set = policySetOf({ policies, pods, namespaces, cells: [] });
  const { verdict } = interpreter(compileNetworkPolicies(set), addressesOf(pods));
  return tuples.map(({ from, to, protocol, port }) =>
    verdict({ from: peers[from]?.address ?? "", to: peers[to]?.address ?? "", protocol, port }),
  );
}

it(`random policies and packets: no verdict differs from Cyclonus' (seed ${seed})`, () => {
  const started = Date.now();
  const wrong: string[] = [];
  const verdictsSeen = { allowed: 0, denied: 0 };
  let controlsSeen = 0;
  let compared = 0;
  // In parts, so that millions need no more memory than thousands do.
  for (let part = 0; compared < wanted; part += 1) {
    const questions = fc.sample(question(tuplesOfQuestion), { numRuns: 50, seed: seed + part });
    const answers = cyclonusVerdicts(questions);
    questions.forEach((asked, at) => {
      const expected = answers[at] ?? [];
      const got = verdicts(asked);
      const differing = got.flatMap((verdict, tuple) => {
        const { ingress, egress } = expected[tuple] ?? {};
        verdictsSeen[ingress && egress ? "allowed" : "denied"] += 1;
        return verdict.ingress === ingress && verdict.egress === egress ? [] : [tuple];
      });
      compared += got.length;
      for (const tuple of differing.slice(0, 1)) {
        const { policies, peers, tuples } = asked;
        wrong.push(
          JSON.stringify({ policies, peers, tuple: tuples[tuple], got: got[tuple], expected: expected[tuple] }),
        );
      }
      // The control: the answers to these policies, held against what others compile to.
      const others = { ...asked, policies: questions[(at + 1) % questions.length]?.policies ?? [] };
      if (verdicts(others).some((verdict, tuple) => verdict.ingress !== expected[tuple]?.ingress)) controlsSeen += 1;
    });
  }
  const pass = wrong.length === 0 && controlsSeen > 0;
  report({
    table: "conformance",
    id: "N3",
    part: "compiled form",
    observed:
      `compiled form against Cyclonus' matcher: ${wrong.length} of ${compared} random tuples differ ` +
      `(${verdictsSeen.allowed} allowed, ${verdictsSeen.denied} denied, seed ${seed})`,
    control: `other policies than the oracle was asked: ${controlsSeen} of ${compared / tuplesOfQuestion} times a verdict differs`,
    pass,
    seconds: (Date.now() - started) / 1000,
    evidence: wrong.slice(0, 5).join("\n"),
    ...(compared < 1_000_000 ? { missing: `10^6 tuples (PALISADE_TUPLES=1000000; these were ${compared})` } : {}),
  });
  expect(wrong).toEqual([]);
  expect(controlsSeen).toBeGreaterThan(compared / tuplesOfQuestion / 2);
});
