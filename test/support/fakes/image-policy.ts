/** How a host checks an image policy: hosts/agent/internal/images/policies.go, abridged. A World has no signatures. */
import { clone } from "@bufbuild/protobuf";
import { publicKeyProblem } from "../../../provider/resources/signers.js";
import { ImagePolicySchema, type ImagePolicy } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { isDnsLabel } from "../../../shared/dns-label.js";
import type { Violation } from "./group-spec.js";

const component = String.raw`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`;
const repositoryPattern = new RegExp(
  String.raw`^[a-zA-Z0-9][-.a-zA-Z0-9]*(?::[0-9]{1,5})?/(?:${component}(?:/${component})*|(?:${component}/)*\*)$`,
);

/** A copy in normal form: equal policies have the same. */
export function normalizedPolicy(given: ImagePolicy): ImagePolicy {
  const policy = clone(ImagePolicySchema, given);
  policy.repositories = [...new Set(policy.repositories)].sort();
  policy.keys = [...new Set(policy.keys.map((key) => `${key.trim()}\n`))].sort();
  return policy;
}

/** The violations of a policy. Messages do not repeat keys. */
export function policyViolations(policy: ImagePolicy): Violation[] {
  const list: Violation[] = [];
  const add = (path: string, reason: string) => void list.push({ path, reason });
  if (!isDnsLabel(policy.name)) add("name", `"${policy.name}" is not a DNS label`);
  const limits = { repositories: [1, 256], keys: [0, 64] } as const;
  for (const field of ["repositories", "keys"] as const) {
    const [least, most] = limits[field];
    const count = policy[field].length;
    if (count < least || count > most) add(field, `${count} ${field}, expected ${least} to ${most}`);
  }
  policy.repositories.forEach((pattern, index) => {
    if (repositoryPattern.test(pattern)) return;
    add(`repositories[${index}]`, `"${pattern}" is neither server/repository nor server/prefix/*`);
  });
  policy.keys.forEach((key, index) => {
    const problem = publicKeyProblem(key);
    if (problem !== undefined) add(`keys[${index}]`, problem);
  });
  return list;
}

/** Whether the policies of a host let an image start, as far as its repository goes. */
export function isAllowed(declared: ImagePolicy[], reference: string): boolean {
  const name = withLowerServer(reference.split("@")[0]!);
  const matches = (pattern: string) =>
    pattern.endsWith("*") ? name.startsWith(withLowerServer(pattern.slice(0, -1))) : name === withLowerServer(pattern);
  return declared.length === 0 || declared.some(({ repositories }) => repositories.some(matches));
}

/** The name of a server is the same in either case. */
function withLowerServer(name: string): string {
  const [server = "", ...rest] = name.split("/");
  return [server.toLowerCase(), ...rest].join("/");
}
