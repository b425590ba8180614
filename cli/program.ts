/**
 * The command line of `palisade`: commands, options and the form of every argument. Each command is implemented in its
 * own file, which is loaded when the command runs, so that help, completion and a refusal come at once.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { Argument, Command, Option } from "commander";
import { clientRoles } from "../shared/client-roles.js";
import { packageRoot } from "../shared/directories.js";
import type { ImageReference } from "../shared/image-reference.js";
import * as argument from "./arguments.js";
import type { KeysClientOptions } from "./keys-command.js";
import type { OutputOptions } from "./output.js";

/** Exit codes, as `palisade --help` and `docs/command.md` name them. */
export const exitCodes = { done: 0, failed: 1, notUnderstood: 2 } as const;

const widestHelp = 80;

/** What the shell completes as the value of an argument. */
export type Completes = "files" | "folders";

/** Arguments and options whose value is a path, for the completion. */
export const completedPaths = new WeakMap<Option, Completes>();

/** The options that an action gets. */
type Options<T> = T & OutputOptions;

/**
 * The command line of `palisade`.
 *
 * @param done gets the exit code of the command that ran
 * @returns a command that throws `CommanderError` instead of ending the process
 */
export function createProgram(done: (exitCode: number) => void): Command {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot(), "package.json"), "utf8")) as { version: string };
  const program = new Command("palisade");
  const prepare = (command: Command): Command =>
    command
      .exitOverride()
      .version(version, "-V, --version", "print the version")
      .helpOption("-h, --help", "print this help")
      .helpCommand(false)
      .configureHelp({ minWidthToWrap: 20 })
      .configureOutput({
        getOutHelpWidth: () => Math.min(process.stdout.columns || widestHelp, widestHelp),
        getErrHelpWidth: () => Math.min(process.stderr.columns || widestHelp, widestHelp),
        outputError: (text, write) => write(text.replace(/^error: /, `${fullName(command)}: `)),
      })
      .showHelpAfterError(`Run \`${fullName(command)} --help\` for its arguments.`);

  /** Adds a command to a parent. */
  const add = (parent: Command, name: string, description: string): Command => {
    const command = new Command(name).description(description).copyInheritedSettings(parent);
    parent.addCommand(command);
    return prepare(command);
  };
  /** Sets what a command does. */
  const runs = (command: Command, action: (...args: never[]) => Promise<number> | number): Command =>
    command.action(async (...args: unknown[]) => {
      // Commander adds the command itself.
      done(await action(...(args.slice(0, -1) as never[])));
    });

  prepare(program)
    .description("Hardened, immutable container hosts, and the container groups on them.")
    .helpCommand("help [command]", "print the help of a command")
    .addHelpText("after", "\nExit codes: 0 done, 1 failed, 2 the command line is not understood.");

  const keys = add(program, "keys", "the operator's keys");
  const keysInit = add(keys, "init", "make what is missing of the operator's keys; none is overwritten");
  option(keysInit, "--directory <dir>", "where (default: keys in the operator's home)", argument.newFolder, {
    completes: "folders",
  });
  runs(outputOption(keysInit), async (options: Options<{ directory?: string }>) =>
    (await import("./keys-command.js")).keysInit(options),
  );

  const keysClient = add(keys, "client", "make a client certificate of a role, or a new one for its key");
  positional(keysClient, "<folder>", "where it is put, for one client only", argument.newFolder);
  choiceOption(keysClient, "--role <role>", "what the client may do", [...clientRoles], { isMandatory: true });
  option(keysClient, "--days <days>", "how long it is valid, 1 to 365 (default: 7)", argument.dayCount);
  option(keysClient, "--keys <dir>", "folder of `palisade keys init`", argument.folder, { completes: "folders" });
  runs(outputOption(keysClient), async (folder: string, options: Options<KeysClientOptions>) =>
    (await import("./keys-command.js")).keysClient(folder, options),
  );

  const keysRevoke = add(keys, "revoke", "revoke a client certificate on the stack's hosts, and on all new ones");
  option(keysRevoke, "--serial <number>", "its serial number, hex", argument.serialNumber, {
    conflicts: ["certificate"],
  });
  option(keysRevoke, "--certificate <file>", "the certificate, PEM", argument.certificatesOfFile, {
    completes: "files",
  });
  option(keysRevoke, "--keys <dir>", "folder of `palisade keys init`", argument.folder, { completes: "folders" });
  oneOf(keysRevoke, "serial", "certificate");
  runs(outputOption(stackOption(keysRevoke)), async (options: OutputOptions) =>
    (await import("./keys-command.js")).keysRevoke(options),
  );

  const keysRotate = add(keys, "rotate", "replace the CA of hosts and clients: hosts accept both, then the new one");
  keysRotate.option("--finish", "put the new CA in the place of the old one", false);
  option(keysRotate, "--keys <dir>", "folder of `palisade keys init`", argument.folder, { completes: "folders" });
  runs(outputOption(stackOption(keysRotate)), async (options: OutputOptions) =>
    (await import("./keys-command.js")).keysRotate(options),
  );

  const env = add(program, "env", 'print the environment for plain pulumi: eval "$(palisade env)"');
  runs(outputOption(env), async (options: OutputOptions) => (await import("./env-command.js")).env(options));

  const status = add(program, "status", "hosts, their integrity and their groups, as the hosts report them");
  hostOption(status);
  runs(outputOption(stackOption(status)), async (options: Options<object>) =>
    (await import("./status-command.js")).status(options),
  );

  const logs = add(program, "logs", "output of a group's containers");
  positional(logs, "<group>", "name of the group", argument.dnsLabel);
  positional(logs, "[container]", "name of one container (default: all)", argument.dnsLabel);
  logs.option("-f, --follow", "go on as more is printed", false);
  option(logs, "--tail <lines>", "only the last lines, 1 to 1000000", argument.lineCount);
  hostOption(logs);
  runs(
    outputOption(stackOption(logs)),
    async (group: string, container: string | undefined, options: Options<object>) =>
      (await import("./logs-command.js")).logs(group, container, options),
  );

  const flows = add(program, "flows", "opened flows and dropped packets, as they happen");
  positional(flows, "[group]", "only flows of this group", argument.dnsLabel);
  choiceOption(flows, "--direction <direction>", "seen from the group", ["ingress", "egress"]);
  choiceOption(flows, "--verdict <verdict>", "what the host did", ["forwarded", "dropped"]);
  option(flows, "--reason <reason>", "why packets were dropped, e.g. policy_default_denied", argument.dropReason);
  option(flows, "--port <port>", "destination port, 1 to 65535", argument.port);
  option(flows, "--address <address>", "address or prefix of one side, e.g. 192.0.2.0/24", argument.address);
  option(flows, "--since <time>", "RFC 3339, or how long ago: 90s, 5m, 1h30m, 7d; at most 87600h", argument.since);
  flows.option("--last", "only what the hosts have kept; do not wait for more", false);
  hostOption(flows);
  flows.addOption(new Option("--json").implies({ output: "json" }).hideHelp());
  runs(outputOption(stackOption(flows)), async (group: string | undefined, options: Options<object>) =>
    (await import("./flows-command.js")).flows(group, options),
  );

  const serial = add(program, "console", "serial console of a host on this machine");
  positional(serial, "[host]", "name of the host; the stack's only one needs none", argument.hostName);
  serial.option("-f, --follow", "go on as more is printed", false);
  option(serial, "--tail <lines>", "last lines, 1 to 1000000 (default: 100)", argument.lineCount);
  serial.option("--path", "print the path of its file instead", false);
  runs(outputOption(stackOption(serial)), async (host: string | undefined, options: Options<object>) =>
    (await import("./console-command.js")).showConsole(host, options),
  );

  const seal = add(program, "seal", "seal an image in a registry, and sign it");
  positional(seal, "<image>", "SERVER/REPOSITORY@sha256:…", argument.imageReference);
  option(seal, "--keys <dir>", "folder of `palisade keys init`", argument.folder, { completes: "folders" });
  option(seal, "--layer-pkcs11 <uri>", "key for layers in an HSM (RFC 7512)", argument.pkcs11Uri);
  option(seal, "--layer-certificate <file>", "certificate of that key", argument.readableFile, { completes: "files" });
  option(seal, "--username <name>", "user of the registry", argument.userName);
  option(seal, "--password-file <file>", "file with the password", argument.passwordOfFile, { completes: "files" });
  option(seal, "--ca <file>", "CA of the registry, PEM", argument.certificatesOfFile, { completes: "files" });
  seal.addOption(new Option("--json").implies({ output: "json" }).hideHelp());
  together(seal, "layerPkcs11", "layerCertificate");
  together(seal, "username", "passwordFile");
  runs(outputOption(seal), async (image: ImageReference, options: Options<object>) =>
    (await import("./seal-command.js")).seal(image, options),
  );

  const vulndb = add(program, "vulndb", "the vulnerability database that images are scanned with");
  const databaseOption = (command: Command) =>
    option(command, "--directory <dir>", "where it is (default: in the cache)", argument.newFolder, {
      completes: "folders",
    });
  const build = add(vulndb, "build", "make it from the changelogs of a Debian suite's packages");
  positional(build, "<package...>", "Debian packages; what they depend on comes along", argument.packageName);
  option(build, "--suite <name>", "release of Debian", argument.suiteName, { standard: "trixie" });
  build.option("--if-absent", "do nothing when there is one", false);
  databaseOption(build);
  build.addOption(new Option("--json").implies({ output: "json" }).hideHelp());
  runs(outputOption(build), async (packages: string[], options: Options<{ suite: string }>) =>
    (await import("./vulndb-command.js")).buildVulnerabilityDatabase(packages, options),
  );
  const show = databaseOption(add(vulndb, "show", "what the database covers"));
  show.addOption(new Option("--json").implies({ output: "json" }).hideHelp());
  runs(outputOption(show), async (options: OutputOptions) =>
    (await import("./vulndb-command.js")).showDatabase(options),
  );

  const patchTools = add(program, "patch-tools", "build what PatchedImage runs: Trivy, Copa, BuildKit; needs Go");
  option(patchTools, "--directory <dir>", "folder for PATH (default: in the cache)", argument.newFolder, {
    completes: "folders",
  });
  runs(outputOption(patchTools), async (options: OutputOptions) =>
    (await import("./patch-tools-command.js")).patchTools(options),
  );

  const recover = add(program, "recover", "after a killed pulumi: clear its lock, repair a state that was cut off");
  recover.addHelpText("after", "\nWorks on a file backend, for the project of the present folder.");
  runs(outputOption(stackOption(recover)), async (options: OutputOptions) =>
    (await import("./recover-command.js")).recover(options),
  );

  const reap = add(program, "reap", "destroy the ephemeral stacks whose test runner has ended");
  reap.option("--kept", "also those kept after a failure", false);
  option(reap, "--id <id>", "only this one", argument.ephemeralId, { conflicts: ["whenRunnerEnds"] });
  const ending = "this one, at the end of standard input";
  option(reap, "--when-runner-ends <id>", ending, argument.ephemeralId, { isHidden: true });
  runs(outputOption(reap), async (options: OutputOptions) => (await import("./reap-command.js")).reap(options));

  const metal = add(program, "metal", "steps of a bare-metal installation; BareMetalHost runs them");
  const step = (name: string, description: string) =>
    option(add(metal, name, description), "--keys <dir>", "folder of `palisade keys init`", argument.folder, {
      completes: "folders",
    });
  runs(
    outputOption(step("firmware-keys", "print the keys for a firmware in setup mode")),
    async (options: OutputOptions) => (await import("./metal-command.js")).firmwareKeys(options),
  );
  runs(step("sign", "sign an EnrollmentRequest on standard input; prints JSON"), async (options: { keys?: string }) =>
    (await import("./metal-command.js")).sign(options),
  );
  runs(step("start", "start the host of a StartRequest on standard input; prints JSON"), async () =>
    (await import("./metal-command.js")).start(),
  );

  const completion = add(program, "completion", "print the script that completes palisade in a shell");
  completion.addArgument(new Argument("<shell>", "the shell").choices(["bash", "zsh", "fish"]));
  completion.addHelpText(
    "after",
    [
      "",
      "bash, with the package bash-completion, in ~/.bashrc:",
      '  eval "$(palisade completion bash)"',
      "zsh, after compinit, in ~/.zshrc:",
      '  eval "$(palisade completion zsh)"',
      "fish, in ~/.config/fish/config.fish:",
      "  palisade completion fish | source",
    ].join("\n"),
  );
  runs(completion, async (shell: string) => (await import("./completion.js")).printScript(shell));
  // Asked by that script with each press of the tab key: `palisade complete -- WORDS`.
  const complete = new Command("complete").argument("[words...]").exitOverride().helpOption(false);
  program.addCommand(complete, { hidden: true });
  runs(complete, async (words: string[]) => (await import("./completion.js")).complete(program, words));

  return program;
}

/** `palisade keys init` */
function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

/** Throws with exit code 2. */
function refuse(command: Command, text: string): never {
  return command.error(`error: ${text}`, { exitCode: exitCodes.notUnderstood, code: "palisade.argument" });
}

/** Reads a value by the function of its kind. An error names the argument and the text that was given. */
function reader<T>(command: Command, name: string, parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof argument.ArgumentProblem)) throw error;
      return refuse(command, error.isSecret ? `${name}: ${error.message}` : `${name}: '${text}' ${error.message}`);
    }
  };
}

interface OptionDetails {
  completes?: Completes;
  standard?: string;
  isHidden?: boolean;
  /** Names of options that it excludes, in camel case. */
  conflicts?: string[];
}

function option(
  command: Command,
  flags: string,
  description: string,
  parse: (text: string) => unknown,
  { completes, standard, isHidden = false, conflicts = [] }: OptionDetails = {},
): Command {
  const made = new Option(flags, description).default(standard).hideHelp(isHidden).conflicts(conflicts);
  made.argParser(reader(command, made.long!, parse));
  if (completes) completedPaths.set(made, completes);
  return command.addOption(made);
}

function choiceOption(
  command: Command,
  flags: string,
  description: string,
  choices: string[],
  { standard, isMandatory = false }: { standard?: string; isMandatory?: boolean } = {},
): Command {
  const made = new Option(flags, description).choices(choices).default(standard).makeOptionMandatory(isMandatory);
  const read = (text: string) =>
    choices.includes(text) ? text : refuse(command, `${made.long}: '${text}' must be ${choices.join(" or ")}`);
  return command.addOption(made.argParser(read));
}

function positional(command: Command, name: string, description: string, parse: (text: string) => unknown): Command {
  const made = new Argument(name, description);
  const read = reader(command, made.name().toUpperCase(), parse);
  return command.addArgument(
    made.argParser((text: string, before: unknown) =>
      made.variadic ? [...(Array.isArray(before) ? (before as unknown[]) : []), read(text)] : read(text),
    ),
  );
}

function outputOption(command: Command): Command {
  return choiceOption(command, "-o, --output <format>", "how it is shown", ["text", "json"], { standard: "text" });
}

function stackOption(command: Command): Command {
  return option(command, "--stack <stack>", "stack (default: $PULUMI_STACK, $STACK, local)", argument.stackName);
}

function hostOption(command: Command): Command {
  return option(command, "--host <host>", "only this host of the stack, by name or id", argument.hostName);
}

/** Refuses a command line without one of two options. */
function oneOf(command: Command, first: string, second: string): void {
  command.hook("preAction", () => {
    if (command.getOptionValue(first) !== undefined || command.getOptionValue(second) !== undefined) return;
    const [one, other] = [first, second].map((name) => command.options.find((o) => o.attributeName() === name)!.long);
    refuse(command, `${one} or ${other} is needed`);
  });
}

/** Refuses one of two options when the other is not given. */
function together(command: Command, first: string, second: string): void {
  command.hook("preAction", () => {
    const given = (name: string) => command.getOptionValue(name) !== undefined;
    if (given(first) === given(second)) return;
    const [one, other] = [first, second].map((name) => command.options.find((o) => o.attributeName() === name)!.long);
    refuse(command, `${one} and ${other} belong together: give both or none`);
  });
}
