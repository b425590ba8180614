/** What a consumer gets: the packed package in a project of its own, with the plain CLI and a real engine. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { World } from "../../support/fakes/world.js";
import { ConsumerProject, repository } from "./consumer-project.js";

const consumer = new ConsumerProject();
beforeAll(() => consumer.install());
afterAll(() => consumer.remove());

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
}

describe("the package", () => {
  it("holds the compiled code, and neither tests nor sources", () => {
    const files = filesOf(consumer.package).filter((file) => !file.startsWith("node_modules/"));
    expect(files).toEqual(
      expect.arrayContaining([
        "LICENSE",
        "bin/palisade",
        "bin/pulumi-resource-palisade",
        "provider/schema.json",
        "dist/cli/main.js",
        "dist/components/index.d.mts",
        "dist/components/index.d.ts",
        "dist/components/index.js",
        "dist/components/index.mjs",
        "dist/provider/main.js",
        ...["d.mts", "d.ts", "js", "mjs"].map((end) => `dist/components/testing/index.${end}`),
      ]),
    );
    const internal = /\.test\.|components\/.+\/testing\/|^(dist\/)?(test|stacks)\//;
    expect(files.filter((file) => internal.test(file))).toEqual([]);
    // What `pulumi new` copies is source on purpose.
    const template = "templates/typescript/index.ts";
    expect(files.filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))).toEqual([template]);
    for (const program of ["bin/palisade", "bin/pulumi-resource-palisade"]) {
      expect(statSync(path.join(consumer.package, program)).mode & 0o111).toBe(0o111);
    }
  });

  // A new file that ships is seen here before it is published, and so is one that is lost by a move.
  it("holds the files of package-files.txt and no others", () => {
    const listed = readFileSync(path.join(__dirname, "package-files.txt"), "utf8").trimEnd().split("\n");
    const packed = filesOf(consumer.package).filter((file) => !file.startsWith("node_modules/"));
    const renewal =
      "If that is right, renew the list: make package && tar -tzf build/package/*.tgz | sed 's,^package/,,' | " +
      "LC_ALL=C sort >test/layers/consumer/package-files.txt";
    const added = packed.filter((file) => !listed.includes(file));
    const lost = listed.filter((file) => !packed.includes(file));
    expect({ added, lost }, renewal).toEqual({ added: [], lost: [] });
    expect(listed, renewal).toEqual([...listed].sort());
  });

  it("lists no tests, no data of tests and no source maps", () => {
    const listed = readFileSync(path.join(__dirname, "package-files.txt"), "utf8").trimEnd().split("\n");
    // `testing` is for users' own tests.
    const internal =
      /[._]test\.|\/testdata\/|\/testing\b(?<!^dist\/components\/testing)|\.map$|^(dist\/)?(test|stacks|tools)\//;
    expect(listed.filter((file) => internal.test(file))).toEqual([]);
  });

  it("holds every file that its own code imports", () => {
    const files = filesOf(consumer.package);
    const missing = files
      .filter((file) => /^dist\/.*\.m?js$/.test(file))
      .flatMap((file) => {
        const text = readFileSync(path.join(consumer.package, file), "utf8");
        return [...text.matchAll(/(?:require\(|from |import\()"(\.[^"]+)"/g)]
          .map(([, target]) => path.join(path.dirname(file), target!))
          .filter((target) => !["", ".js", "/index.js"].some((end) => files.includes(`${target}${end}`)))
          .map((target) => `${file} imports ${target}`);
      });
    expect(missing).toEqual([]);
  });

  it("builds the tools that patch images, as its preview announces", async () => {
    const folder = path.join(consumer.project, "patch-tools");
    const { exitCode, stdout, stderr } = await consumer.run(path.join(consumer.project, "node_modules/.bin/palisade"), [
      ...["patch-tools", "--directory", folder],
    ]);
    expect(exitCode, stderr).toBe(0);
    expect(stdout).toBe(`export PATH="${folder}:$PATH"\n`);
    for (const program of ["trivy", "copa", "buildkitd"]) {
      expect(await consumer.run(path.join(folder, program), ["--help"])).toMatchObject({ exitCode: 0 });
    }
  });

  it("gives `import` and `require` the same classes", async () => {
    const script = `import * as imported from "@palisade-host/palisade";
import { createRequire } from "node:module";
const required = createRequire(process.cwd() + "/")("@palisade-host/palisade");
for (const name of ["NestedHost", "ContainerGroup", "Registry", "DebianImage", "HostImage", "StateDisk", "VirtualMachine"]) {
  if (typeof imported[name] !== "function" || imported[name] !== required[name]) throw new Error(name);
}
const testing = "@palisade-host/palisade/testing";
const { ephemeralStack } = await import(testing);
if (typeof ephemeralStack !== "function") throw new Error(testing);
if (ephemeralStack !== createRequire(process.cwd() + "/")(testing).ephemeralStack) throw new Error(testing);`;
    expect(await consumer.run(process.execPath, ["--input-type=module", "--eval", script])).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
  });

  it("does not bring the package of a cloud, and names the one that a sub-path needs", async () => {
    for (const [subPath, peer] of [
      ["azure", "@pulumi/azure-native"],
      ["kubernetes", "@pulumi/kubernetes"],
    ] as const) {
      expect(existsSync(path.join(consumer.project, "node_modules", peer))).toBe(false);
      const script = `require("@palisade-host/palisade/${subPath}")`;
      const { exitCode, stderr } = await consumer.run(process.execPath, ["--eval", script]);
      expect(exitCode).not.toBe(0);
      expect(stderr).toContain(`Cannot find module '${peer}/`);
    }
  });

  it("gives a group of each cloud whose package is installed, by `import` and `require`", async () => {
    const script = `import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
for (const subPath of ["azure", "kubernetes"]) {
  const imported = await import("@palisade-host/palisade/" + subPath);
  const required = require("@palisade-host/palisade/" + subPath);
  if (typeof imported.ContainerGroup !== "function" || imported.ContainerGroup !== required.ContainerGroup) {
    throw new Error(subPath);
  }
}`;
    const scope = path.join(consumer.project, "node_modules/@pulumi");
    const peers = ["azure-native", "kubernetes"];
    for (const name of peers) symlinkSync(path.join(repository, "node_modules/@pulumi", name), path.join(scope, name));
    try {
      const run = await consumer.run(process.execPath, [
        "--preserve-symlinks",
        "--input-type=module",
        "--eval",
        script,
      ]);
      expect(run).toMatchObject({ exitCode: 0, stderr: "" });
    } finally {
      for (const name of peers) unlinkSync(path.join(scope, name));
    }
  });

  it("has types for both kinds of modules", () => {
    const [right, wrong] = ["right.txt", "wrong.txt"].map((file) =>
      readFileSync(path.join(__dirname, "types", file), "utf8"),
    ) as [string, string];
    const complaints = consumer.typeCheck({
      "right.mts": right,
      "right.cts": right,
      "wrong.mts": wrong,
      "wrong.cts": wrong,
    });
    const places = [...complaints.matchAll(/^([\w.]+)\((\d+),\d+\): error/gm)].map(
      ([, file, line]) => `${file}:${line}`,
    );
    const expected = ["wrong.mts", "wrong.cts"].flatMap((file) => [3, 4, 5, 6].map((line) => `${file}:${line}`));
    expect(places.sort(), complaints).toEqual(expected.sort());
  });

  it("brings the command, which makes keys", async () => {
    const command = path.join(consumer.project, "node_modules/.bin/palisade");
    const result = consumer.must(await consumer.run(command, ["keys", "init"]));
    expect(result.stdout).toContain(`keys in ${consumer.keys}: made passphrase`);
  });
});

describe("the package's host", () => {
  it("is prebuilt: the agent with its BPF programs, and every file that the image's definition uses", async () => {
    const programs = ["palisade-agent", "palisade-initrd", "containerd", "containerd-shim-runc-v2"];
    for (const program of programs) {
      expect(statSync(path.join(consumer.package, "dist/host", program)).mode & 0o111, program).toBe(0o111);
    }
    const agent = readFileSync(path.join(consumer.package, "dist/host/palisade-agent"));
    expect(agent.includes(readFileSync(path.join(repository, "bpf/datapath/datapath_bpfel.o")))).toBe(true);
    const inputs = path.join(consumer.package, "dist/provider/local/host-images/inputs.js");
    const script = `const { buildPaths, hostImageInputsHash } = require(${JSON.stringify(inputs)});
const { script, binaries } = buildPaths();
require("node:fs").accessSync(script, require("node:fs").constants.X_OK);
hostImageInputsHash({ mode: "enforce", keysDirectory: process.env.CONSUMER_KEYS }).then((hash) => console.log(binaries, hash));`;
    const { stdout } = consumer.must(await consumer.run(process.execPath, ["--eval", script]));
    expect(stdout).toMatch(/\/node_modules\/@palisade-host\/palisade\/dist\/host [0-9a-f]{64}\n$/);
  });
});

describe("the package's own plugin", () => {
  it("is found in the project and previews", async () => {
    consumer.must(await consumer.pulumi("stack", "init", "plugin"));
    consumer.editProjectFile("main: index.js", "main: registry/index.js");
    const { stdout } = consumer.must(await consumer.pulumi("preview", "--stack", "plugin"));
    expect(stdout).toMatch(/\+ +palisade:index:Registry +registry +create/);
    expect(stdout).toMatch(/\+ +palisade:index:StateDisk +data +create/);
  });

  it("refuses wrong arguments in preview, each with its path", async () => {
    consumer.editProjectFile("main: registry/index.js", "main: refused/index.js");
    const { exitCode, output } = await consumer.pulumi("preview", "--stack", "plugin");
    expect(exitCode).not.toBe(0);
    expect(output).toContain('NestedHost "host": 3 arguments are not valid');
    expect(output).toContain('image = "latest": must be a digest');
    expect(output).toContain("cpus = 0: must be a whole number from 1 to 64");
    expect(output).toContain("hypervisor.uri = \"esxi://elsewhere\": only 'local' can be used");
    consumer.editProjectFile("main: refused/index.js", "main: index.js");
  });
});

describe("a program, on backends without a machine", () => {
  beforeAll(async () => {
    consumer.useFakeBackends();
    consumer.must(await consumer.pulumi("stack", "init", "consumer"));
  });

  it("is previewed, created, found unchanged and removed", async () => {
    const stack = ["--stack", "consumer"];
    const preview = consumer.must(await consumer.pulumi("preview", ...stack));
    expect(preview.stdout).toMatch(/\+ \d+ to create/);

    consumer.must(await consumer.pulumi("up", "--yes", "--skip-preview", ...stack));
    const outputs = consumer.must(await consumer.pulumi("stack", "output", "--json", ...stack));
    expect(JSON.parse(outputs.stdout)).toMatchObject({ state: "Running", secureBoot: true, endpoints: [{ port: 80 }] });
    const world = new World(consumer.world);
    expect(world.list("virtual-machines")).toHaveLength(1);

    const { stdout: state } = consumer.must(await consumer.pulumi("stack", "export", ...stack));
    expect(state).not.toContain("consumer-canary");

    // The same program as an ECMAScript module is the same program.
    consumer.editProjectFile("main: index.js", "main: esm/index.js");
    const again = consumer.must(
      await consumer.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes", ...stack),
    );
    expect(again.stdout).toMatch(/\d+ unchanged/);
    consumer.editProjectFile("main: esm/index.js", "main: index.js");

    consumer.must(await consumer.pulumi("destroy", "--yes", "--skip-preview", ...stack));
    // Groups are gone with their host, unasked.
    for (const kind of ["virtual-machines", "state-disks", "registries"] as const) {
      expect(world.list(kind), kind).toEqual([]);
    }
  });

  it("continues after a Pulumi that was killed while it wrote its state", async () => {
    const stack = ["--stack", "consumer"];
    const up = () => consumer.pulumi("up", "--yes", "--skip-preview", ...stack);
    consumer.must(await up());
    const backend = path.join(consumer.root, "backend/.pulumi");
    const [, project] = /^name: (.*)$/m.exec(readFileSync(path.join(consumer.project, "Pulumi.yaml"), "utf8"))!;
    const locks = path.join(backend, "locks/organization", project!, "consumer");
    mkdirSync(locks, { recursive: true });
    const dead = { pid: 2 ** 22 + 1, username: "shop", hostname: hostname(), timestamp: "2026-11-24T00:00:00Z" };
    writeFileSync(path.join(locks, "dead.json"), JSON.stringify(dead));
    writeFileSync(path.join(backend, "stacks", project!, "consumer.json"), '{"version":3,');
    expect((await up()).output).toMatch(/failed to load checkpoint|currently locked/);

    const palisade = path.join(consumer.project, "node_modules/.bin/palisade");
    const recovered = consumer.must(await consumer.run(palisade, ["recover", ...stack]));
    expect(recovered.output).toMatch(/cleared a stale lock.*the version before it is back/s);
    consumer.must(await up());
    const world = new World(consumer.world);
    expect(world.list("virtual-machines")).toHaveLength(1);
    consumer.must(await consumer.pulumi("destroy", "--yes", "--skip-preview", ...stack));
    expect(world.list("virtual-machines")).toEqual([]);
  });
});
