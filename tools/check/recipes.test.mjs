// The recipes of CONTRIBUTING.md, compared with the code. A recipe names the places to edit, in backticks: files, or
// folders with a slash at the end. An existing example shows where a new one has to be: every place where it occurs is
// named by the recipe, and it occurs in every place that the recipe names.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";

const text = (file) => readFileSync(file, "utf8");
const namesIn = (file, pattern) => [...text(file).matchAll(pattern)].map(([, name]) => name);
const lowerFirst = (name) => name[0].toLowerCase() + name.slice(1);
const kebab = (name) => lowerFirst(name).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
/** An RPC is `GetHost` in Go and `getHost` in TypeScript. */
const inBothCases = (name) => new RegExp(`\\b(${name}|${lowerFirst(name)})\\b`);

const contract = "hosts/api/palisade/agent/v1/agent.proto";
const isCalledByProvider = (rpc) => inBothCases(rpc).test(text("provider/backends/agents.ts"));

/**
 * title: the heading of the recipe.
 * placeholders: what the example has in the place of the recipe's placeholders.
 * example: how the example is called. rooms: where each of its occurrences must be named by the recipe.
 * uses: occurrences in these rooms that only use the example, and why.
 * every: the names of all examples. named: how one of them is called. own: the files that each has by itself.
 * without: places of the recipe in which no name occurs, and why.
 */
const recipes = [
  {
    title: "A new resource of the provider",
    placeholders: { "<new-resource>": "state-disk", "<newResource>": "stateDisk", "<part>": "hypervisor" },
    // Not `stateDiskId` and `stateDiskGiB`, which are properties of others.
    example: /StateDisk(?!Id|GiB)|\bstateDisk\b|"state-disks"/,
    rooms: ["provider/", "sdk/", "test/support/", "tools/"],
    uses: {
      "sdk/virtualMachine.ts": "describes a property that takes its id",
      "provider/local/missing-programs.test.ts": "makes one",
    },
    every: Object.keys(JSON.parse(text("provider/schema.json")).resources).map((token) => token.split(":").at(-1)),
    named: (name) => new RegExp(`\\b(${name}|${lowerFirst(name)})\\b`),
    own: (name) => [`provider/resources/${kebab(name)}.ts`, `sdk/${lowerFirst(name)}.ts`],
    without: {},
  },
  {
    title: "A new RPC of the agent",
    placeholders: { "<role>": "integrity" },
    example: inBothCases("GetIntegrity(Response|Request)?"),
    rooms: ["hosts/", "provider/", "test/support/", "test/layers/contract/", "cli/testing/"],
    uses: {
      "provider/local/hypervisor/observation.ts": "reads the answer",
      "provider/local/hypervisor/virtual-machines.ts": "calls it",
    },
    every: namesIn(contract, /\brpc (\w+)/g).filter(isCalledByProvider),
    named: inBothCases,
    own: () => [],
    without: {},
  },
  {
    title: "A new drop reason of the datapath",
    placeholders: { "<header>": "parse" },
    example: /\bROUTING_HEADER\b|REASON_ROUTING_HEADER\b|"routing_header"/,
    rooms: [""],
    uses: {},
    every: namesIn("bpf/src/reason.h", /\bREASON_(\w+)(?: = 0)?,$/gm).filter((name) => name !== "COUNT"),
    named: (name) => new RegExp(`REASON_${name}\\b|"${name.toLowerCase()}"`),
    own: () => [],
    without: { "bpf/objects.sha256": "has the sums of the objects" },
  },
];

/** The steps of a recipe: the numbered list below its heading, each with the lines that continue it. */
function stepsOf(title) {
  const lines = text("CONTRIBUTING.md").split("\n");
  const start = lines.indexOf(`### ${title}`) + 1;
  if (start === 0) throw new Error(`CONTRIBUTING.md has no recipe "${title}"`);
  const length = lines.slice(start).findIndex((line) => line.startsWith("#"));
  const steps = [];
  for (const line of lines.slice(start, start + length)) {
    if (/^\d+\. /.test(line)) steps.push(line);
    else if (/^ {3}\S/.test(line)) steps[steps.length - 1] += ` ${line.trim()}`;
  }
  return steps;
}

/** The paths that steps name, with the example's name in the place of the placeholders. */
function placesIn(steps, placeholders) {
  return steps
    .flatMap((step) => [...step.matchAll(/`([\w.<>-]+\/[\w./<>-]*|[A-Z]+\.md)`/g)])
    .map(([, place]) =>
      Object.entries(placeholders).reduce((path, [placeholder, name]) => path.replace(placeholder, name), place),
    );
}

const covers = (place, file) => (place.endsWith("/") ? file.startsWith(place) : file === place);
const isIn = (rooms, file) => rooms.some((room) => file.startsWith(room));

/**
 * Text files of the repository that say something of the code; what tests recorded and these recipes are not among
 * them.
 */
const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard"])
  .toString()
  .trim()
  .split("\n")
  .filter((file) => existsSync(file) && statSync(file).isFile())
  .filter((file) => !/\.(png|o|sum)$|\/testdata\/|^CONTRIBUTING\.md$|^tools\/check\/recipes\./.test(file))
  .map((name) => ({ name, content: text(name) }));
const filesWith = (pattern) => files.filter(({ content }) => pattern.test(content)).map(({ name }) => name);

describe.each(recipes)("$title", (recipe) => {
  const steps = stepsOf(recipe.title);
  const places = placesIn(steps, recipe.placeholders);
  const isNamed = (file) => places.some((place) => covers(place, file));

  it("is a short list, numbered from 1", () => {
    expect(steps.length).toBeGreaterThan(2);
    expect(steps.length).toBeLessThan(10);
    expect(steps.map((step) => Number.parseInt(step))).toEqual(steps.map((_step, index) => index + 1));
  });

  it.each(places)("names %s, which exists", (place) => {
    expect(existsSync(place)).toBe(true);
    expect(statSync(place).isDirectory()).toBe(place.endsWith("/"));
  });

  it("names every place of its rooms where the example occurs", () => {
    const occurrences = filesWith(recipe.example).filter((file) => isIn(recipe.rooms, file));
    expect(occurrences.filter((file) => !isNamed(file) && !recipe.uses[file])).toEqual([]);
    expect(Object.keys(recipe.uses).filter((file) => !occurrences.includes(file))).toEqual([]);
  });

  it("names no place where the example does not occur", () => {
    const occurrences = filesWith(recipe.example);
    const empty = places.filter((place) => !occurrences.some((file) => covers(place, file)));
    expect(empty).toEqual(empty.filter((place) => recipe.without[place]));
    expect(Object.keys(recipe.without).filter((place) => !empty.includes(place))).toEqual([]);
  });

  it("names every place in which all examples occur", () => {
    expect(recipe.every.length).toBeGreaterThan(5);
    const [first, ...others] = recipe.every.map((name) => filesWith(recipe.named(name)));
    const common = first.filter((file) => others.every((found) => found.includes(file)));
    expect(common).not.toEqual([]);
    expect(common.filter((file) => !isNamed(file))).toEqual([]);
    for (const file of recipe.every.flatMap(recipe.own)) expect(existsSync(file), file).toBe(true);
  });
});
