/** Row N1, the compiler's part: each cell of Cyclonus' cases, in both families, from the compiled form alone. */
import { describe, expect, it } from "vitest";
import { type CompiledPolicy, compileNetworkPolicies } from "../../../components/policy/index.js";
import { report } from "../../support/acceptance/report.js";
import { withoutOneRule } from "./control.js";
import { addressesOf, cyclonusCases, type CyclonusStep, policySetOf } from "./cyclonus.js";
import { interpreter } from "./interpreter.js";

/** Cells in which a compiled policy and the oracle differ, as a person would name them. */
function differences({ pods, cells }: CyclonusStep, policy: CompiledPolicy): string[] {
  const { verdict } = interpreter(policy, addressesOf(pods));
  return cells.flatMap((cell) => {
    const [from, to] = [pods[cell.from], pods[cell.to]];
    const port = to?.ports[cell.port];
    if (!from || !to || !port) throw new Error("a cell is about a pod or port that is not there");
    const got = verdict({ from: from.address, to: to.address, protocol: port.protocol, port: port.port });
    if (got.ingress === cell.ingress && got.egress === cell.egress) return [];
    const { ingress, egress } = cell;
    return [
      `${from.namespace}/${from.name} to ${to.namespace}/${to.name} ${port.protocol} ${port.port}: ` +
        `${JSON.stringify(got)} instead of ${JSON.stringify({ ingress, egress })}`,
    ];
  });
}

describe("Cyclonus' cases", () => {
  it.each([4, 6] as const)(
    "IPv%i: every cell of the compiled form equals the oracle's, and a missing rule is seen",
    (family) => {
      const started = Date.now();
      const cases = cyclonusCases(family);
      const wrong: string[] = [];
      const controls = { made: 0, seen: 0 };
      let cells = 0;
      for (const { description, steps } of cases) {
        steps.forEach((step, index) => {
          const policy = compileNetworkPolicies(policySetOf(step));
          cells += step.cells.length;
          wrong.push(...differences(step, policy).map((difference) => `${description}, step ${index}: ${difference}`));
          const changed = withoutOneRule(policy);
          if (changed === undefined) return;
          controls.made += 1;
          if (differences(step, changed).length > 0) controls.seen += 1;
        });
      }
      const pass = cases.length === 230 && wrong.length === 0 && controls.made > 100 && controls.seen === controls.made;
      report({
        table: "conformance",
        id: "N1",
        part: `compiled form IPv${family}`,
        observed: `compiled form, IPv${family}: ${cases.length} cases, ${wrong.length} of ${cells} cells differ from the oracle`,
        control: `IPv${family}: one rule left out of a step's policy, ${controls.made} times: cells differ ${controls.seen} times`,
        pass,
        seconds: (Date.now() - started) / 1000,
        evidence: wrong.slice(0, 20).join("\n"),
      });
      expect(wrong).toEqual([]);
      expect(controls.seen).toBe(controls.made);
      expect(pass).toBe(true);
    },
  );
});
