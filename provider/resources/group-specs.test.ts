/**
 * The specs of container groups that are accepted and refused: one table for the component, the provider, the agent and
 * the agent that tests use.
 * The agent's test of it is hosts/agent/internal/groups/group_specs_test.go.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkGroupOnHost, type ContainerGroupArgs } from "../../components/group/arguments.js";
import { ArgumentCheck, ArgumentError } from "../../components/internal/arguments.js";
import type { Context, Properties } from "../protocol/resource.js";
import { normalized, violationsOf } from "../../test/support/fakes/group-spec.js";
import type { GroupDeploymentInputs } from "../schema/inputs.js";
import { groupDeployment } from "./group-deployment.js";
import { toGroupSpec } from "./group-spec.js";

interface Case {
  name: string;
  /** Laid over the base. */
  group?: Properties;
  /** Laid over the first container. */
  container?: Properties;
  /** How many copies of the container there are. */
  containers?: number;
  /** Paths of the refused fields. */
  refused: string[];
  /** Why the agent's contract has no form for it. */
  unwritable?: string;
  /** The same in a layer that differs. */
  except?: Partial<Record<"component" | "provider" | "agent", string[]>>;
}

const table = JSON.parse(readFileSync(join(__dirname, "../../hosts/api/testdata/group-specs.json"), "utf8")) as {
  base: Properties;
  cases: Case[];
};

function laidOver(base: Properties, change: Properties = {}): Properties {
  return Object.fromEntries(Object.entries({ ...base, ...change }).filter(([, value]) => value !== null));
}

/** The provider's inputs of a case, without the host. */
function specOf({ group, container, containers }: Case): Properties {
  const spec = laidOver(table.base, group);
  const [first, ...others] = spec["containers"] as Properties[];
  if (first === undefined) return spec;
  const changed = laidOver(first, container);
  const copies = Array.from({ length: containers ?? 0 }, (_, index) => ({ ...changed, name: `c${index}` }));
  return { ...spec, containers: containers === undefined ? [changed, ...others] : copies };
}

/** The same as the arguments of the component, which names some fields differently. */
function argumentsOf({ name, ports, containers, ...rest }: Properties): Omit<ContainerGroupArgs, "host"> {
  return {
    ...rest,
    containerGroupName: name,
    containers: (containers as Properties[]).map(({ imageChannel, ...container }) =>
      imageChannel === undefined ? container : { ...container, image: imageChannel },
    ),
    ...(ports === undefined ? {} : { ipAddress: { ports } }),
  } as unknown as Omit<ContainerGroupArgs, "host">;
}

function refusedByComponent(spec: Properties): string[] {
  const check = new ArgumentCheck("ContainerGroup");
  checkGroupOnHost(check, "web", argumentsOf(spec));
  try {
    check.refuse();
    return [];
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    return error.problems.map(({ path }) =>
      path
        .replace(/^containerGroupName$/, "name")
        .replace(/^ipAddress\.ports/, "ports")
        .replace(/\.image\.(channel|repository)$/, ".imageChannel.$1"),
    );
  }
}

const host = {
  ...{ hostId: "h", endpoint: "https://127.0.0.1:1", certificateAuthority: "pem", publishedPorts: [] },
  ...{ clientCertificateFile: "/c", clientKeyFile: "/k" },
};

async function refusedByProvider(spec: Properties): Promise<string[]> {
  const inputs = { host, ...spec };
  const { failures } = await groupDeployment.check({} as Context, { inputs, oldInputs: undefined });
  return failures.map(({ property }) => property);
}

function refusedByFakeAgent(spec: Properties): string[] {
  const withDefaults = (ports: unknown) =>
    ((ports ?? []) as Properties[]).map((port) => ({ protocol: "TCP", ...port }));
  const inputs = {
    ...{ restartPolicy: "Always", host, ...spec },
    ports: withDefaults(spec["ports"]),
    containers: (spec["containers"] as Properties[]).map((one) => ({ ...one, ports: withDefaults(one["ports"]) })),
  } as unknown as GroupDeploymentInputs;
  return violationsOf(normalized(toGroupSpec(inputs))).map(({ path }) => path);
}

/** The path of an input as the agent's contract has it. */
const inContract = (path: string) =>
  [
    ["environmentVariables", "environment"],
    ["imageRegistryCredentials", "imageRegistries"],
    ["imageChannel.channel", "channel"],
    ["requests.cpu", "cpuRequest"],
    ["limits.cpu", "cpuLimit"],
    ["requests.memoryInGB", "memoryRequestBytes"],
    ["limits.memoryInGB", "memoryLimitBytes"],
  ].reduce((found, [input, contract]) => found.replace(input!, contract!), path);

const sorted = (paths: string[]) => [...new Set(paths)].sort();

describe.each(table.cases.map((one) => ({ ...one, spec: specOf(one) })))(
  "$name",
  ({ spec, refused, except, unwritable }) => {
    it("is checked by the component", () => {
      expect(sorted(refusedByComponent(spec))).toEqual(sorted(except?.component ?? refused));
    });

    it("is checked by the provider", async () => {
      expect(sorted(await refusedByProvider(spec))).toEqual(sorted(except?.provider ?? refused));
    });

    // The schema refuses a container without requests, and the contract has no form for some other inputs.
    const [first] = spec["containers"] as { resources?: { requests?: { memoryInGB?: number } } }[];
    if (unwritable !== undefined || (first && first.resources?.requests?.memoryInGB === undefined)) return;
    it("is checked by the agent that tests use", () => {
      expect(sorted(refusedByFakeAgent(spec))).toEqual(sorted((except?.agent ?? refused).map(inContract)));
    });
  },
);
