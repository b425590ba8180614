/** Negative controls: policies that are known to be wrong. */
import { sealed } from "../../../components/policy/compiled.js";
import type { CompiledPolicy } from "../../../components/policy/index.js";

/**
 * The policy without one rule that a cell shows: one for a pod, about a port that is probed. Undefined when it has
 * none.
 */
export function withoutOneRule(policy: CompiledPolicy): CompiledPolicy | undefined {
  const { hash: _hash, ...left } = structuredClone(policy);
  for (const { ingress, egress } of left.endpoints) {
    for (const { rules } of [ingress, egress]) {
      const shown = rules.findIndex(
        ({ identity, protocol, portStart, portEnd }) =>
          left.endpoints.some((endpoint) => endpoint.identity === identity) &&
          (protocol === "any" || (portStart <= 80 && portEnd >= 80)),
      );
      if (shown >= 0) {
        rules.splice(shown, 1);
        return sealed(left);
      }
    }
  }
  return undefined;
}
