/**
 * The specs of container groups that are accepted and refused: one table for the component, the provider and the agent.
 * The agent's test of it is hosts/agent/internal/groups/group_specs_test.go.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkGroupOnHost, type ContainerGroupArgs } from "../../components/group/arguments.js";
import { ArgumentCheck, ArgumentError } from "../../components/internal/arguments.js";
import type { Context, Properties } from "../protocol/resource.js";
import { groupDeployment } from "./group-deployment.js";

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

const sorted = (paths: string[]) => [...new Set(paths)].sort();

describe.each(table.cases.map((one) => ({ ...one, spec: specOf(one) })))("$name", ({ spec, refused, except }) => {
  it("is checked by the component", () => {
    expect(sorted(refusedByComponent(spec))).toEqual(sorted(except?.component ?? refused));
  });

  it("is checked by the provider", async () => {
    expect(sorted(await refusedByProvider(spec))).toEqual(sorted(except?.provider ?? refused));
  });
});
