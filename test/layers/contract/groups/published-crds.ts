/**
 * CustomResourceDefinitions as they are published, from the Go modules that hold them: fetched once by the machine's
 * own Go, into its module cache, and compared with the module's hash in the public checksum database.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

interface PublishedCrd {
  name: string;
  version: string;
  module: string;
  /** Of the module, as in a go.sum. */
  sum: string;
  file: string;
}

export const publishedCrds: readonly PublishedCrd[] = [
  {
    name: "ciliumnetworkpolicies.cilium.io",
    version: "v2",
    module: "github.com/cilium/cilium@v1.20.2",
    sum: "h1:dqiEGIcXc+gqCLYG/l7VCFJ8GHyb4HUrwbZOpkX5dL8=",
    file: "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml",
  },
  {
    name: "clusternetworkpolicies.policy.networking.k8s.io",
    version: "v1alpha2",
    module: "sigs.k8s.io/network-policy-api@v0.2.0",
    sum: "h1:W/f0Y9VoeQdOWjX/h2gZyLH6gZ5LLEXmh/9wy9mQWKw=",
    file: "config/crd/standard/policy.networking.k8s.io_clusternetworkpolicies.yaml",
  },
];

/** The definition's YAML. @throws when the module is not the one that is pinned here */
export function readCrd({ module, sum, file }: PublishedCrd): string {
  // Outside of this repository, whose go.mod need not know the module.
  const answer = execFileSync("go", ["mod", "download", "-json", module], { cwd: tmpdir(), encoding: "utf8" });
  const { Dir, Sum } = JSON.parse(answer) as { Dir: string; Sum: string };
  if (Sum !== sum) throw new Error(`${module} has the hash ${Sum} instead of ${sum}`);
  return readFileSync(path.join(Dir, file), "utf8");
}
