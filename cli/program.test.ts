import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Command } from "commander";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { packageRoot } from "../shared/directories.js";
import { runToEnd } from "./commands.js";
import { createProgram } from "./program.js";

const digest = `sha256:${"a".repeat(64)}`;
const image = `registry.example/shop/web@${digest}`;
const { version } = JSON.parse(readFileSync(path.join(packageRoot(), "package.json"), "utf8"));

let folder: string;
let stdout: string;
let stderr: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-program-"));
  writeFileSync(path.join(folder, "empty"), "\n");
  writeFileSync(path.join(folder, "text"), "a line\n");
  writeFileSync(path.join(folder, "two"), "a line\nanother\n");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  stdout = stderr = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
  vi.spyOn(console, "log").mockImplementation((text) => void (stdout += `${String(text)}\n`));
  // A command line that is refused for its form reads no stack and makes nothing.
  vi.stubEnv("PATH", path.join(folder, "nothing"));
  for (const variable of ["PALISADE_HOME", "PALISADE_STATE", "PALISADE_CACHE"]) {
    vi.stubEnv(variable, path.join(folder, "nothing", variable));
  }
  for (const variable of ["PULUMI_STACK", "STACK"]) vi.stubEnv(variable, "");
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Every command, hidden ones too, with the words that select it. */
function allCommands(command: Command, words: string[] = []): { command: Command; words: string[] }[] {
  const children = command.commands.flatMap((child) => allCommands(child, [...words, child.name()]));
  return [{ command, words }, ...children];
}
const commands = allCommands(createProgram(() => undefined));
const shown = commands.filter(({ words }) => words[0] !== "complete");
/** The commands that do something, without those that only group others. */
const leafCommands = shown.filter(({ command }) => command.commands.length === 0);

describe("help and version", () => {
  it.each(shown.map(({ words }) => words))("palisade %s %s --help", async (...words) => {
    const args = words.filter((word) => typeof word === "string");
    expect(await runToEnd([...args, "--help"])).toBe(0);
    expect(stderr).toBe("");
    expect(stdout).toMatch(new RegExp(`^Usage: ${["palisade", ...args].join(" ")} `));
    for (const line of stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
    const help = stdout;
    stdout = "";
    expect(await runToEnd([...args, "-h"])).toBe(0);
    expect(stdout).toBe(help);
  });

  it.each(shown.map(({ words }) => words))("palisade %s %s --version", async (...words) => {
    const args = words.filter((word) => typeof word === "string");
    for (const flag of ["--version", "-V"]) {
      stdout = "";
      expect(await runToEnd([...args, flag])).toBe(0);
      expect([stdout, stderr]).toEqual([`${version}\n`, ""]);
    }
  });

  it("stay at 80 columns where the terminal is wider, and follow one that is narrower", async () => {
    const { columns } = process.stdout;
    try {
      for (const [given, widest] of [
        [200, 80],
        [60, 60],
      ] as const) {
        stdout = "";
        process.stdout.columns = given;
        expect(await runToEnd(["flows", "--help"])).toBe(0);
        expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(widest);
      }
    } finally {
      process.stdout.columns = columns;
    }
  });

  it("palisade help COMMAND is the same", async () => {
    expect(await runToEnd(["help", "status"])).toBe(0);
    expect(stdout).toMatch(/^Usage: palisade status /);
  });

  it.each([[[]], [["keys"]], [["vulndb"]], [["metal"]]])(
    "without a command, %j shows help as an error",
    async (args) => {
      expect(await runToEnd(args)).toBe(2);
      expect(stdout).toBe("");
      expect(stderr).toMatch(new RegExp(`^Usage: ${["palisade", ...args].join(" ")} `));
    },
  );
});

it("every command that shows something has -o json", () => {
  const without = leafCommands.filter(({ command }) => !command.options.some(({ long }) => long === "--output"));
  // A script, and two whose output is JSON anyway.
  expect(without.map(({ words }) => words.join(" "))).toEqual(["metal sign", "metal start", "completion"]);
});

it("docs/command.md names every command, option and exit code", () => {
  const text = readFileSync(path.join(packageRoot(), "docs/command.md"), "utf8");
  for (const { words, command } of leafCommands) {
    expect(text).toContain(`palisade ${words.join(" ")}`);
    for (const { long, hidden } of command.options) if (!hidden) expect(text).toContain(long);
  }
});

/** Arguments that every command refuses, by the form of the argument. */
const badPaths = [""];
const badStacks = ["", "--show-secrets", "a b", "a/b/c/d", "../x y", "a".repeat(101)];
const badHosts = ["", "--all", "a\nb"];

describe("a command line that is not understood", () => {
  it.each<[string[], string | RegExp]>([
    // Words
    [["frobnicate"], "palisade: unknown command 'frobnicate'"],
    [["toString"], "palisade: unknown command 'toString'"],
    [["stauts"], "(Did you mean status?)"],
    [["keys", "forget"], "palisade keys: unknown command 'forget'"],
    [["keys", "int"], "(Did you mean init?)"],
    [["vulndb", "biuld", "nginx"], "(Did you mean build?)"],
    [["keys", "init", "--force"], "palisade keys init: unknown option '--force'"],
    [["env", "x"], "palisade env: too many arguments"],
    [["logs"], "palisade logs: missing required argument 'group'"],
    [["logs", "web", "--folow"], "(Did you mean --follow?)"],
    [["flows", "--verdit", "dropped"], "(Did you mean --verdict?)"],
    [["status", "--stakc", "dev"], "(Did you mean --stack?)"],
    [["logs", "web", "--tail"], "option '--tail <lines>' argument missing"],
    [["console", "a", "b"], "palisade console: too many arguments"],
    [["patch-tools", "copa"], "palisade patch-tools: too many arguments"],
    [["flows", "a", "b"], "palisade flows: too many arguments"],
    [["seal"], "palisade seal: missing required argument 'image'"],
    [["seal", image, image], "too many arguments"],
    [["vulndb", "build"], "missing required argument 'package'"],
    [["vulndb", "show", "nginx"], "too many arguments"],
    [["completion"], "missing required argument 'shell'"],
    [["completion", "tcsh"], "Allowed choices are bash, zsh, fish"],
    [["metal", "sgin"], "(Did you mean sign?)"],
    // What is shown, and how
    ...leafCommands
      .filter(({ command }) => command.options.some(({ long }) => long === "--output"))
      .map(({ words }): [string[], string | RegExp] => [
        [...words, "-o", "yaml"],
        "--output: 'yaml' must be text or json",
      ]),
    ...leafCommands
      .filter(({ command }) => command.options.some(({ long }) => long === "--stack"))
      .flatMap(({ words }) =>
        badStacks.map((bad): [string[], string | RegExp] => [[...words, "--stack", bad], `--stack: '${bad}' `]),
      ),
    ...leafCommands
      .filter(({ command }) => command.options.some(({ long }) => long === "--host"))
      .flatMap(({ words }) =>
        badHosts.map((bad): [string[], string | RegExp] => [[...words, "--host", bad], `--host: '${bad}' `]),
      ),
    ...leafCommands
      .filter(({ command }) => command.options.some(({ long }) => long === "--directory"))
      .flatMap(({ words }) =>
        badPaths.map((bad): [string[], string | RegExp] => [[...words, "--directory", bad], "must be a path"]),
      ),
    ...leafCommands
      .filter(({ command }) => command.options.some(({ long }) => long === "--keys"))
      .flatMap(({ words }): [string[], string | RegExp][] => [
        [[...words, "--keys", ""], "--keys: '' must be a path"],
        [[...words, "--keys", "/nowhere"], "--keys: '/nowhere' there is no such folder"],
        [[...words, "--keys", "/etc/hostname"], "--keys: '/etc/hostname' is a file"],
      ]),
    [["keys", "client", "--role", "reader"], "missing required argument 'folder'"],
    [["keys", "client", "/etc/hostname", "--role", "reader"], "FOLDER: '/etc/hostname' is a file"],
    [["keys", "client", "reader"], "required option '--role <role>' not specified"],
    [["keys", "client", "reader", "--role", "writer"], "--role: 'writer' must be operator or reader"],
    [["keys", "client", "reader", "--role", "reader", "--days", "0"], "must be a whole number from 1 to 365"],
    [["keys", "client", "reader", "--role", "reader", "--days", "366"], "must be a whole number from 1 to 365"],
    [["keys", "revoke"], "--serial or --certificate is needed"],
    [["keys", "revoke", "--serial", "1g"], "--serial: '1g' must be the serial number of a certificate"],
    [["keys", "revoke", "--serial", "1".repeat(41)], "must be the serial number of a certificate, 1 to 40 hex digits"],
    [["keys", "revoke", "--certificate", "/etc/hostname"], "holds no certificate in PEM"],
    [["keys", "init", "--directory", "/etc/hostname"], "--directory: '/etc/hostname' is a file"],
    // Names
    ...["", "Web", "web_1", "-web", "web-", "a".repeat(64), "web/../x"]
      .filter((bad) => !bad.startsWith("-"))
      .flatMap((bad): [string[], string | RegExp][] => [
        [["logs", bad], `GROUP: '${bad}' must be`],
        [["logs", "web", bad], `CONTAINER: '${bad}' must be`],
        [["flows", bad], `GROUP: '${bad}' must be`],
      ]),
    // Numbers
    ...["0", "-1", "1.5", "1e3", "0x10", "", " 5", "1000001", "9".repeat(400), "NaN"].flatMap(
      (bad): [string[], string | RegExp][] => [
        [["logs", "web", `--tail=${bad}`], `--tail: '${bad}' must be a whole number from 1 to 1000000`],
        [["console", `--tail=${bad}`], `--tail: '${bad}' must be a whole number from 1 to 1000000`],
      ],
    ),
    ...["0", "65536", "-1", "http", "80.0", ""].map((bad): [string[], string | RegExp] => [
      ["flows", `--port=${bad}`],
      `--port: '${bad}' must be a whole number from 1 to 65535`,
    ]),
    // Addresses
    ...[
      "web",
      "",
      "192.0.2",
      "192.0.2.0/33",
      "192.0.2.0/",
      "192.0.2.0/08",
      "2001:db8::/129",
      "::1/64/64",
      "fe80::1%eth0",
    ].map((bad): [string[], string | RegExp] => [
      ["flows", `--address=${bad}`],
      `--address: '${bad}' must be an address or a prefix`,
    ]),
    // Choices
    [["flows", "--direction", "up"], "--direction: 'up' must be ingress or egress"],
    [["flows", "--verdict", "toString"], "--verdict: 'toString' must be forwarded or dropped"],
    ...["", "Bad Luck", "x".repeat(64), "a;b"].map((bad): [string[], string | RegExp] => [
      ["flows", "--reason", bad],
      `--reason: '${bad}' must be a reason`,
    ]),
    // Times
    ...["99999999999999h", "87601h", "3651d", "9".repeat(400) + "s", "87600h1s"].map(
      (bad): [string[], string | RegExp] => [["flows", "--since", bad], `--since: '${bad}' must be at most 87600h`],
    ),
    ...[
      ...["yesterday", "", "5", "m", "5x", "5 m", "-5m", "1.5h", "5m1h", "2026", "2026-01-31", "2026-01-31T12:00:00"],
      ...[
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "+275760-09-13T00:00:00Z",
      ],
    ].map((bad): [string[], string | RegExp] => [["flows", `--since=${bad}`], `--since: '${bad}' must be a time`]),
    [["flows", "--since", "1969-12-31T23:59:59Z"], "must not be before 1970"],
    // Images
    ...[
      ...["registry.example/web:latest", "web@sha256:aa", `web@${digest}`, `r:bad/web@${digest}`, `r:0/web@${digest}`],
      ...[
        `r:65536/web@${digest}`,
        `r:/web@${digest}`,
        `https://r/web@${digest}`,
        `r/Web@${digest}`,
        `r/web/@${digest}`,
      ],
      ...[`r//web@${digest}`, `r/web@${digest}@${digest}`, `r/web@${digest.toUpperCase()}`, `[::1/web@${digest}`],
      ...[
        `r/we..b@${digest}`,
        `r/web:@${digest}`,
        `r/web:-a@${digest}`,
        `r_x/web@${digest}`,
        `-r/web@${digest}`.slice(1) + "0",
      ],
      ...[
        `r/${"a".repeat(256)}@${digest}`,
        `r/web@sha512:${"a".repeat(128)}`,
        `u@r/web@${digest}`,
        ` r/web@${digest}`,
        "",
      ],
    ].map((bad): [string[], string | RegExp] => [["seal", bad], `IMAGE: '${bad}' `]),
    [["seal", image, "--username", "u"], "--username and --password-file belong together"],
    [["seal", image, "--username", "u:v"], "--username: 'u:v' must be the name of a user"],
    [["seal", image, "--password-file", "/nowhere"], "--password-file: '/nowhere' cannot be read"],
    [["seal", image, "--password-file", "/etc"], "--password-file: '/etc' cannot be read: it is a folder"],
    [["seal", image, "--ca", "/nowhere"], "--ca: '/nowhere' cannot be read"],
    [["seal", image, "--layer-pkcs11", "pkcs11:object=a"], "--layer-pkcs11 and --layer-certificate belong together"],
    [["seal", image, "--layer-pkcs11", "object=a"], "--layer-pkcs11: it does not begin with `pkcs11:`"],
    [["seal", image, "--layer-certificate", "/nowhere"], "--layer-certificate: '/nowhere' cannot be read"],
    // Packages
    ...["", "Nginx", "a", "nginx=1", "nginx;id", "../x"].map((bad): [string[], string | RegExp] => [
      ["vulndb", "build", "nginx", bad],
      `PACKAGE: '${bad}' must be the name of a Debian package`,
    ]),
    ...["", "Trixie", "13", "trixie/main"].map((bad): [string[], string | RegExp] => [
      ["vulndb", "build", "nginx", "--suite", bad],
      `--suite: '${bad}' must be the code name`,
    ]),
    // Ephemeral stacks
    ...["", "x", "../ephemeral-0123456789ab", "ephemeral-0123456789AB"].flatMap(
      (bad): [string[], string | RegExp][] => [
        [["reap", "--id", bad], `--id: '${bad}' must be the id`],
        [["reap", "--when-runner-ends", bad], `--when-runner-ends: '${bad}' must be the id`],
      ],
    ),
    [
      ["reap", "--id", "ephemeral-0123456789ab", "--when-runner-ends", "ephemeral-0123456789ab"],
      "cannot be used with option",
    ],
  ])("%j", async (args, message) => {
    expect(await runToEnd(args)).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/Run `palisade[a-z -]* --help` for its arguments\.\n$/);
  });

  it("does not repeat the PIN of a key", async () => {
    const uri = "pkcs11:object=a?pin-value=1234";
    expect(await runToEnd(["seal", image, "--layer-pkcs11", uri, "--layer-certificate", "/etc/hostname"])).toBe(2);
    expect(stderr).toContain("`pin-value` holds the PIN in clear");
    expect(stderr).not.toContain("1234");
  });

  it.each([
    ["--ca", "empty", "is empty"],
    ["--ca", "text", "holds no certificate in PEM"],
    ["--password-file", "empty", "is empty"],
    ["--password-file", "two", "holds more than one line"],
  ])("%s with the file %s", async (name, file, reason) => {
    expect(await runToEnd(["seal", image, "--username", "u", name, path.join(folder, file)])).toBe(2);
    expect(stderr).toContain(`${name}: '${path.join(folder, file)}' ${reason}`);
  });
});

describe("a command line that is understood", () => {
  // The failure that follows proves it: there is no pulumi (or, where the clone has one, no state), and there are no
  // keys.
  const stateIsAsked = /pulumi is not on PATH|unable to open state directory/;
  it.each<[string[], string | RegExp]>([
    ...[
      "90s",
      "5m",
      "2h",
      "7d",
      "1h30m",
      "0s",
      "87600h",
      "2026-01-31T12:00:00Z",
      "2026-01-31t12:00:00.5+01:00",
      "2024-02-29T00:00:00Z",
    ].map((time): [string[], string | RegExp] => [["flows", "--since", time], stateIsAsked]),
    ...["192.0.2.7", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::1"].map(
      (address): [string[], string | RegExp] => [["flows", "--address", address], stateIsAsked],
    ),
    ...["dev", "acme/dev", "acme/shop/dev", "pr-12", "v1.2_x"].map((stack): [string[], string | RegExp] => [
      ["status", "--stack", stack],
      stateIsAsked,
    ]),
    ...[image, `r:5000/web:1.2@${digest}`, `[::1]:5000/a/b@${digest}`, `localhost/a__b/c--d@${digest}`].map(
      (reference): [string[], string | RegExp] => [["seal", reference], "layers/layer.crt cannot be read"],
    ),
    [["logs", "web", "--tail", "1000000"], stateIsAsked],
  ])("%j", async (args, failure) => {
    expect(await runToEnd(args)).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(failure);
  });

  it("checks the stack of the environment too", async () => {
    vi.stubEnv("STACK", "a b");
    for (const args of [["status"], ["env"]]) {
      stderr = "";
      expect(await runToEnd(args)).toBe(1);
      expect(stderr).toContain("STACK: 'a b' must be the name of a stack");
    }
  });
});

it("what is not given has its default", () => {
  const build = commands.find(({ words }) => words.join(" ") === "vulndb build")!.command;
  expect(build.opts()).toEqual({ suite: "trixie", ifAbsent: false, output: "text" });
});

describe("completion", () => {
  it.each(["bash", "zsh", "fish"])("prints a script for %s", async (shell) => {
    expect(await runToEnd(["completion", shell])).toBe(0);
    expect(stdout).toContain("palisade complete -- ");
    expect(stderr).toBe("");
  });

  it.each<[string[], string[]]>([
    [
      [""],
      leafCommands
        .map(({ words }) => words[0]!)
        .concat("help")
        .filter((word, index, all) => all.indexOf(word) === index),
    ],
    [["st"], ["status"]],
    [
      ["keys", ""],
      ["init", "client", "revoke", "rotate"],
    ],
    [
      ["keys", "client", "--role", ""],
      ["operator", "reader"],
    ],
    [
      ["vulndb", ""],
      ["build", "show"],
    ],
    [
      ["completion", ""],
      ["bash", "zsh", "fish"],
    ],
    [
      ["flows", "--verdict", ""],
      ["forwarded", "dropped"],
    ],
    [["flows", "--verdict", "d"], ["dropped"]],
    [["status", "-o", "j"], ["json"]],
    [["logs", "web", "--fol"], ["--follow"]],
    [["seal", "--pass"], ["--password-file"]],
  ])("%j", async (words, expected) => {
    expect(await runToEnd(["complete", "--", ...words])).toBe(0);
    const offered = stdout.trimEnd().split("\n");
    expect(offered.pop()).toMatch(/^:\d+$/);
    expect(offered.map((line) => line.split("\t")[0]).sort()).toEqual([...expected].sort());
  });

  it.each([
    [["seal", "--ca", ""], ":0\n"],
    [["seal", "--keys", "/e"], ":16\n"],
  ])("leaves paths to the shell: %j", async (words, directive) => {
    expect(await runToEnd(["complete", "--", ...words])).toBe(0);
    expect(stdout).toBe(directive);
  });
});
